// What modifiers take: styles, traits, places.

public struct AccessibilityChildBehavior: Hashable, Sendable {
    let name: String
    public static let ignore = Self(name: "ignore"), contain = Self(name: "contain"), combine = Self(name: "combine")
}
public struct AccessibilityTraits: SetAlgebra, Sendable {
    var names: Set<String> = []
    public static let isButton = Self(names: ["isButton"]), isHeader = Self(names: ["isHeader"]), isSelected = Self(names: ["isSelected"])
    public static let updatesFrequently = Self(names: ["updatesFrequently"]), isImage = Self(names: ["isImage"])
    public init() {}
    init(names: Set<String>) { self.names = names }
    public func contains(_ member: Self) -> Bool { names.isSuperset(of: member.names) }
    public func union(_ other: Self) -> Self { Self(names: names.union(other.names)) }
    public func intersection(_ other: Self) -> Self { Self(names: names.intersection(other.names)) }
    public func symmetricDifference(_ other: Self) -> Self { Self(names: names.symmetricDifference(other.names)) }
    public mutating func insert(_ member: Self) -> (inserted: Bool, memberAfterInsert: Self) {
        let inserted = !contains(member)
        names.formUnion(member.names)
        return (inserted, member)
    }
    public mutating func remove(_ member: Self) -> Self? {
        guard contains(member) else { return nil }
        names.subtract(member.names)
        return member
    }
    public mutating func update(with member: Self) -> Self? {
        names.formUnion(member.names)
        return member
    }
    public mutating func formUnion(_ other: Self) { names.formUnion(other.names) }
    public mutating func formIntersection(_ other: Self) { names.formIntersection(other.names) }
    public mutating func formSymmetricDifference(_ other: Self) { names.formSymmetricDifference(other.names) }
}

public enum Visibility: Hashable, CaseIterable, Sendable { case automatic, visible, hidden }
public typealias VerticalEdgeSet = Edge.Set
public struct UnitPoint: Hashable, Sendable { public static let top = Self(), bottom = Self(), center = Self() }
public struct ScrollDismissesKeyboardMode: Sendable { public static let interactively = Self(), immediately = Self(), never = Self() }
public struct SubmitLabel: Sendable { public static let done = Self(), send = Self(), next = Self(), go = Self() }
public struct SubmitTriggers: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let text = SubmitTriggers(rawValue: 1), search = SubmitTriggers(rawValue: 2)
}
public struct Animation: Equatable, Sendable {
    public static let `default` = Self(), linear = Self()
    public static func easeInOut(duration: Double) -> Animation { Self() }
}

public protocol PrimitiveButtonStyle {}
public struct BorderedButtonStyle: PrimitiveButtonStyle { public init() {} }
public struct BorderedProminentButtonStyle: PrimitiveButtonStyle { public init() {} }
public struct BorderlessButtonStyle: PrimitiveButtonStyle { public init() {} }
public struct PlainButtonStyle: PrimitiveButtonStyle { public init() {} }
extension PrimitiveButtonStyle where Self == BorderedButtonStyle { public static var bordered: Self { .init() } }
extension PrimitiveButtonStyle where Self == BorderedProminentButtonStyle { public static var borderedProminent: Self { .init() } }
extension PrimitiveButtonStyle where Self == BorderlessButtonStyle { public static var borderless: Self { .init() } }
extension PrimitiveButtonStyle where Self == PlainButtonStyle { public static var plain: Self { .init() } }
public struct ButtonBorderShape: Equatable, Sendable { public static let automatic = Self(), capsule = Self(), roundedRectangle = Self() }
public enum ControlSize: CaseIterable, Sendable { case mini, small, regular, large, extraLarge }

public protocol PickerStyle {}
public struct SegmentedPickerStyle: PickerStyle { public init() {} }
public struct MenuPickerStyle: PickerStyle { public init() {} }
extension PickerStyle where Self == SegmentedPickerStyle { public static var segmented: Self { .init() } }
extension PickerStyle where Self == MenuPickerStyle { public static var menu: Self { .init() } }

public protocol TextFieldStyle {}
public struct RoundedBorderTextFieldStyle: TextFieldStyle { public init() {} }
extension TextFieldStyle where Self == RoundedBorderTextFieldStyle { public static var roundedBorder: Self { .init() } }

public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle { public init() {} }
public struct TitleAndIconLabelStyle: LabelStyle { public init() {} }
extension LabelStyle where Self == IconOnlyLabelStyle { public static var iconOnly: Self { .init() } }
extension LabelStyle where Self == TitleAndIconLabelStyle { public static var titleAndIcon: Self { .init() } }

public protocol TextSelectability {}
public struct EnabledTextSelectability: TextSelectability {}
extension TextSelectability where Self == EnabledTextSelectability { public static var enabled: Self { .init() } }

@MainActor @preconcurrency public protocol ToolbarContent { func toolbarNodes(_ place: Place) -> [Node] }
public struct ToolbarItemPlacement: Sendable {
    public static let automatic = Self(), primaryAction = Self(), cancellationAction = Self(), confirmationAction = Self()
}
public struct ToolbarItem<ID, Content: View>: ToolbarContent {
    let content: Content
    public func toolbarNodes(_ place: Place) -> [Node] { [Node("ToolbarItem", "", SwiftUI.nodes(content, place.child("tool")))] }
}
extension ToolbarItem where ID == () {
    public init(placement: ToolbarItemPlacement = .automatic, @ViewBuilder content: () -> Content) { self.content = content() }
}
@resultBuilder @MainActor public enum ToolbarContentBuilder {
    public static func buildExpression<Content: ToolbarContent>(_ content: Content) -> Content { content }
    public static func buildBlock<Content: ToolbarContent>(_ content: Content) -> some ToolbarContent { content }
}

extension Text {
    public func bold() -> Text { self }
    public func italic() -> Text { self }
    public func monospaced() -> Text { self }
}
extension Image {
    public func resizable() -> Image { self }
}
