// Texts, and the images and shapes beside them.

/// The key of a sentence. Tests set `lookUp` to a string catalog.
public struct LocalizedStringKey: Equatable, ExpressibleByStringInterpolation, Sendable {
    @MainActor public static var lookUp: @MainActor (String) -> String = { $0 }

    let key: String
    public init(_ value: String) { key = value }
    public init(stringLiteral value: String) { key = value }
    @MainActor var string: String { LocalizedStringKey.lookUp(key) }
}

@MainActor @preconcurrency public struct Text: View, Primitive {
    public typealias Body = Never
    enum Content { case key(LocalizedStringKey), string(String) }
    let content: Content
    var styles: [String: String] = [:]

    nonisolated public init(_ key: LocalizedStringKey, tableName: String? = nil, bundle: Bundle? = nil, comment: StaticString? = nil) {
        content = .key(key)
    }
    @_disfavoredOverload nonisolated public init<S: StringProtocol>(_ content: S) { self.content = .string(String(content)) }
    nonisolated public init(verbatim content: String) { self.content = .string(content) }
    /// Disfavoured, as a literal is a sentence's key to SwiftUI, and an `AttributedString` can be written as one.
    @_disfavoredOverload nonisolated public init(
        _ attributedContent: AttributedString
    ) { content = .string(String(attributedContent.characters)) }

    var string: String {
        switch content {
        case .key(let key): key.string
        case .string(let string): string
        }
    }

    public func nodes(_ place: Place) -> [Node] {
        let node = Node("Text", string)
        node.styles = styles
        return [node]
    }
}

/// The attributes of a text that SwiftUI draws.
extension AttributeScopes {
    public struct SwiftUIAttributes: AttributeScope {
        public let font: FontAttribute
        public let foregroundColor: ForegroundColorAttribute
        public let backgroundColor: BackgroundColorAttribute

        public enum FontAttribute: AttributedStringKey {
            public typealias Value = Font
            public static let name = "SwiftUI.Font"
        }
        public enum ForegroundColorAttribute: AttributedStringKey {
            public typealias Value = Color
            public static let name = "SwiftUI.ForegroundColor"
        }
        public enum BackgroundColorAttribute: AttributedStringKey {
            public typealias Value = Color
            public static let name = "SwiftUI.BackgroundColor"
        }
    }
    public var swiftUI: SwiftUIAttributes.Type { SwiftUIAttributes.self }
}

extension AttributeDynamicLookup {
    public subscript<T: AttributedStringKey>(dynamicMember keyPath: KeyPath<AttributeScopes.SwiftUIAttributes, T>) -> T { self[T.self] }
}

public struct Image: View, Primitive {
    public typealias Body = Never
    let name: String
    nonisolated public init(systemName: String) { name = systemName }

    /// An image has no text: it is `kind`, and is to be labelled or hidden, or stands beside words.
    public func nodes(_ place: Place) -> [Node] {
        let node = Node("Image")
        node.identifier = name
        return [node]
    }

    public enum Scale: Sendable, Hashable { case small, medium, large }
}

public struct Label<Title: View, Icon: View>: View, Primitive {
    public typealias Body = Never
    let title: Title
    let icon: Icon
    public init(@ViewBuilder title: () -> Title, @ViewBuilder icon: () -> Icon) { (self.title, self.icon) = (title(), icon()) }

    public func nodes(_ place: Place) -> [Node] {
        let drawn = SwiftUI.nodes(icon, place.child("icon"))
        drawn.forEach { $0.isHidden = true } // the title says it
        return [Node("Label", "", drawn + SwiftUI.nodes(title, place.child("title")))]
    }
}

extension Label where Title == Text, Icon == Image {
    public init(_ titleKey: LocalizedStringKey, systemImage name: String) { (title, icon) = (Text(titleKey), Image(systemName: name)) }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, systemImage name: String) {
        (self.title, icon) = (Text(title), Image(systemName: name))
    }
}

public protocol ShapeStyle: Sendable {}

public struct Color: ShapeStyle, View, Primitive, Hashable, CustomStringConvertible {
    public typealias Body = Never
    let name: String
    var alpha = 1.0
    nonisolated init(named name: String, alpha: Double = 1) { (self.name, self.alpha) = (name, alpha) }

    nonisolated public static let accentColor = Color(named: "accent")
    nonisolated public static let primary = Color(named: "primary"), secondary = Color(named: "secondary"), clear = Color(named: "clear")
    nonisolated public static let red = Color(named: "red"), orange = Color(named: "orange"), green = Color(named: "green")

    nonisolated public func opacity(_ opacity: Double) -> Color { Color(named: name, alpha: alpha * opacity) }
    nonisolated public var description: String { name }
    public func nodes(_ place: Place) -> [Node] { [Node("Shape")] }
}

public struct HierarchicalShapeStyle: ShapeStyle, CustomStringConvertible {
    public let description: String
    public static let primary = HierarchicalShapeStyle(description: "primary"), secondary = HierarchicalShapeStyle(description: "secondary")
}

public struct TintShapeStyle: ShapeStyle, CustomStringConvertible {
    public init() {}
    public var description: String { "tint" }
}

public struct BackgroundStyle: ShapeStyle, CustomStringConvertible {
    public init() {}
    public var description: String { "background" }
}

public struct FillShapeStyle: ShapeStyle, CustomStringConvertible {
    public init() {}
    public var description: String { "fill" }
    public var secondary: FillShapeStyle { self }
    public var tertiary: FillShapeStyle { self }
    public var quaternary: FillShapeStyle { self }
}

extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var primary: HierarchicalShapeStyle { .init(description: "primary") }
    public static var secondary: HierarchicalShapeStyle { .init(description: "secondary") }
    public static var tertiary: HierarchicalShapeStyle { .init(description: "tertiary") }
}
extension ShapeStyle where Self == TintShapeStyle { public static var tint: TintShapeStyle { .init() } }
extension ShapeStyle where Self == BackgroundStyle { public static var background: BackgroundStyle { .init() } }
extension ShapeStyle where Self == FillShapeStyle { public static var fill: FillShapeStyle { .init() } }
extension ShapeStyle where Self == Color {
    public static var red: Color { .red }
    public static var orange: Color { .orange }
    public static var green: Color { .green }
    public static var clear: Color { .clear }
}

@MainActor @preconcurrency public protocol Shape: View, Sendable where Body == Never {}
@MainActor @preconcurrency public protocol InsettableShape: Shape {}

/// A shape that was filled or drawn around.
public struct DrawnShape: View, Primitive {
    public typealias Body = Never
    let style: String
    public func nodes(_ place: Place) -> [Node] {
        let node = Node("Shape")
        node.styles["drawn"] = style
        return [node]
    }
}

extension Shape {
    public func fill<S: ShapeStyle>(_ content: S) -> some View { DrawnShape(style: "fill \(content)") }
    public func stroke<S: ShapeStyle>(_ content: S, lineWidth: CGFloat = 1) -> some View { DrawnShape(style: "stroke \(content)") }
}
extension InsettableShape {
    public func strokeBorder<S: ShapeStyle>(_ content: S, lineWidth: CGFloat = 1) -> some View { DrawnShape(style: "border \(content)") }
}

public struct RoundedRectangle: InsettableShape, Primitive {
    nonisolated public init(cornerRadius: CGFloat) {}
    public func nodes(_ place: Place) -> [Node] { [Node("Shape")] }
}
public struct Rectangle: InsettableShape, Primitive {
    nonisolated public init() {}
    public func nodes(_ place: Place) -> [Node] { [Node("Shape")] }
}
public struct Capsule: InsettableShape, Primitive {
    nonisolated public init() {}
    public func nodes(_ place: Place) -> [Node] { [Node("Shape")] }
}
public struct Circle: InsettableShape, Primitive {
    nonisolated public init() {}
    public func nodes(_ place: Place) -> [Node] { [Node("Shape")] }
}
extension Shape where Self == RoundedRectangle {
    public static func rect(cornerRadius: CGFloat) -> RoundedRectangle { RoundedRectangle(cornerRadius: cornerRadius) }
}

public struct Font: Sendable, Hashable {
    public enum TextStyle: Sendable, Hashable, CaseIterable {
        case largeTitle, title, title2, title3, headline, subheadline, body, callout, footnote, caption, caption2
    }
    public enum Design: Hashable, Sendable { case `default`, monospaced, rounded, serif }
    public enum Weight: Hashable, Sendable { case regular, medium, semibold, bold }

    let style: TextStyle
    var weight: Weight?
    public static let title = Font(style: .title), title2 = Font(style: .title2), title3 = Font(style: .title3)
    public static let headline = Font(style: .headline), subheadline = Font(style: .subheadline), body = Font(style: .body)
    public static let callout = Font(style: .callout), footnote = Font(style: .footnote), caption = Font(style: .caption)

    public static func system(
        _ style: TextStyle, design: Design? = nil, weight: Weight? = nil
    ) -> Font { Font(style: style, weight: weight) }
    public func monospacedDigit() -> Font { self }
    public func monospaced() -> Font { self }
    public func bold() -> Font { self }
}
