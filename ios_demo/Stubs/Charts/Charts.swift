// A stand-in for Swift Charts: see ../README.md for what it does not prove. A mark is a node "LineMark" with its values.
import SwiftUI

public protocol Plottable { associatedtype PrimitivePlottable }
extension Int: Plottable { public typealias PrimitivePlottable = Int }
extension Double: Plottable { public typealias PrimitivePlottable = Double }
extension String: Plottable { public typealias PrimitivePlottable = String }

public struct PlottableValue<Value: Plottable> {
    let label: String, value: Value
    @_disfavoredOverload public static func value<S: StringProtocol>(_ label: S, _ value: Value) -> PlottableValue<Value> {
        .init(label: String(label), value: value)
    }
    @MainActor public static func value(_ labelKey: LocalizedStringKey, _ value: Value) -> PlottableValue<Value> {
        .init(label: "\(labelKey)", value: value)
    }
}

@MainActor @preconcurrency public protocol ChartContent { func marks() -> [Node] }

public struct LineMark: ChartContent {
    let node: Node
    @MainActor public init<X: Plottable, Y: Plottable, S: Plottable>(
        x: PlottableValue<X>, y: PlottableValue<Y>, series: PlottableValue<S>
    ) {
        node = Node("LineMark", "\(x.value),\(y.value)")
        node.styles["series"] = "\(series.value)"
    }
    public func marks() -> [Node] { [node] }
}
public struct PointMark: ChartContent {
    let node: Node
    @MainActor public init<X: Plottable, Y: Plottable>(
        x: PlottableValue<X>, y: PlottableValue<Y>
    ) { node = Node("PointMark", "\(x.value),\(y.value)") }
    public func marks() -> [Node] { [node] }
}

public struct ChartTuple: ChartContent {
    let parts: [any ChartContent]
    public func marks() -> [Node] { parts.flatMap { $0.marks() } }
}

@resultBuilder @MainActor public enum ChartContentBuilder {
    public static func buildExpression<Content: ChartContent>(_ content: Content) -> Content { content }
    public static func buildBlock<Content: ChartContent>(_ content: Content) -> Content { content }
    public static func buildBlock<A: ChartContent, B: ChartContent>(_ a: A, _ b: B) -> ChartTuple { ChartTuple(parts: [a, b]) }
    public static func buildIf<Content: ChartContent>(_ content: Content?) -> ChartTuple { ChartTuple(parts: content.map { [$0] } ?? []) }
}

extension ForEach: ChartContent where Content: ChartContent {
    public func marks() -> [Node] { data.flatMap { content($0).marks() } }
}
extension ForEach where Content: ChartContent, Data.Element: Identifiable, ID == Data.Element.ID {
    public init(_ data: Data, @ChartContentBuilder content: @escaping (Data.Element) -> Content) {
        self.init(data, identify: { $0.id }, content: content)
    }
}

public struct ModifiedMark: ChartContent {
    let of: any ChartContent
    public func marks() -> [Node] { of.marks() }
}
public enum InterpolationMethod: Sendable { case linear, monotone }
public struct BasicChartSymbolShape: Sendable { public static let circle = Self(), square = Self(), diamond = Self() }
extension ChartContent {
    public func interpolationMethod(_ method: InterpolationMethod) -> some ChartContent { ModifiedMark(of: self) }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some ChartContent { ModifiedMark(of: self) }
    public func foregroundStyle<D: Plottable>(by value: PlottableValue<D>) -> some ChartContent { ModifiedMark(of: self) }
    public func symbol<D: Plottable>(by value: PlottableValue<D>) -> some ChartContent { ModifiedMark(of: self) }
    public func symbol(_ shape: BasicChartSymbolShape) -> some ChartContent { ModifiedMark(of: self) }
    public func symbolSize(_ size: CGFloat) -> some ChartContent { ModifiedMark(of: self) }
}

public struct Chart<Content: ChartContent>: View, Primitive {
    public typealias Body = Never
    let content: Content
    public init(@ChartContentBuilder content: () -> Content) { self.content = content() }
    public func nodes(_ place: Place) -> [Node] { [Node("Chart", "", content.marks())] }
}

@MainActor @preconcurrency public protocol AxisContent {}
@MainActor @preconcurrency public protocol AxisMark {}
public struct AxisValue { public func `as`<P: Plottable>(_ type: P.Type) -> P? { nil } }
public struct AxisMarkValues: Sendable {
    public static let automatic = AxisMarkValues()
    public static func automatic(desiredCount: Int? = nil) -> AxisMarkValues { .init() }
}
public struct AxisMarks<Content: AxisMark>: AxisContent {
    public init<Value: Plottable>(values: [Value], @AxisMarkBuilder content: @escaping (AxisValue) -> Content) {}
}
public struct AxisGridLine: AxisMark { public init() {} }
public struct AxisTick: AxisMark { public init() {} }
public struct AxisValueLabel<Content: View>: AxisMark {
    @MainActor public init(@ViewBuilder content: () -> Content) {}
}
public struct AxisMarkTuple: AxisMark {}
@resultBuilder @MainActor public enum AxisMarkBuilder {
    public static func buildExpression<Content: AxisMark>(_ content: Content) -> Content { content }
    public static func buildBlock<A: AxisMark>(_ a: A) -> A { a }
    public static func buildBlock<A: AxisMark, B: AxisMark>(_ a: A, _ b: B) -> AxisMarkTuple { AxisMarkTuple() }
    public static func buildIf<Content: AxisMark>(_ content: Content?) -> AxisMarkTuple { AxisMarkTuple() }
}
@resultBuilder @MainActor public enum AxisContentBuilder {
    public static func buildExpression<Content: AxisContent>(_ content: Content) -> Content { content }
    public static func buildBlock<A: AxisContent>(_ a: A) -> A { a }
}

extension View {
    public func chartXScale<V: Plottable & Comparable>(domain: ClosedRange<V>) -> some View { self }
    public func chartYScale<V: Plottable & Comparable>(domain: ClosedRange<V>) -> some View { self }
    public func chartYAxis<Content: AxisContent>(@AxisContentBuilder content: () -> Content) -> some View { self }
    public func chartXAxisLabel(_ labelKey: LocalizedStringKey) -> some View { self }
    @_disfavoredOverload public func chartXAxisLabel<S: StringProtocol>(_ label: S) -> some View { self }
    public func chartForegroundStyleScale<D: Plottable, S: ShapeStyle>(domain: [D], range: [S]) -> some View { self }
    public func chartSymbolScale<D: Plottable>(domain: [D], range: [BasicChartSymbolShape]) -> some View { self }
    public func chartLegend(_ visibility: Visibility) -> some View { self }
}
