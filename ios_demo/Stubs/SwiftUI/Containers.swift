// Views that hold others.

public struct HorizontalAlignment: Equatable, Sendable { public static let leading = Self(), center = Self(), trailing = Self() }
public struct VerticalAlignment: Equatable, Sendable {
    public static let top = Self(), center = Self(), bottom = Self(), firstTextBaseline = Self()
}
public struct Alignment: Equatable, Sendable {
    public static let center = Self(), leading = Self(), trailing = Self(), top = Self(), bottom = Self(), topLeading = Self()
}
public enum TextAlignment: Hashable, CaseIterable, Sendable { case leading, center, trailing }
public enum Axis: Int8, CaseIterable, Sendable {
    case horizontal, vertical
    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8
        public init(rawValue: Int8) { self.rawValue = rawValue }
        public static let horizontal = Set(rawValue: 1), vertical = Set(rawValue: 2)
    }
}
public enum Edge: Int8, CaseIterable, Sendable {
    case top, leading, bottom, trailing
    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8
        public init(rawValue: Int8) { self.rawValue = rawValue }
        public static let top = Set(rawValue: 1), leading = Set(rawValue: 2), bottom = Set(rawValue: 4), trailing = Set(rawValue: 8)
        public static let horizontal = Set(rawValue: 10), vertical = Set(rawValue: 5), all = Set(rawValue: 15)
    }
}
public enum HorizontalEdge: Int8, CaseIterable, Sendable { case leading, trailing }
public enum VerticalEdge: Int8, CaseIterable, Sendable { case top, bottom }

/// A view that only holds another one.
@MainActor public protocol Holder: View, Primitive where Body == Never {
    associatedtype Content: View
    var kind: String { get }
    var content: Content { get }
}
extension Holder {
    public func nodes(_ place: Place) -> [Node] { [Node(kind, "", SwiftUI.nodes(content, place.child(kind)))] }
}

public struct VStack<Content: View>: Holder {
    public var kind: String { "VStack" }
    public let content: Content
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) { self.content = content() }
}
public struct HStack<Content: View>: Holder {
    public var kind: String { "HStack" }
    public let content: Content
    public init(
        alignment: VerticalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) { self.content = content() }
}
public struct ZStack<Content: View>: Holder {
    public var kind: String { "ZStack" }
    public let content: Content
    public init(alignment: Alignment = .center, @ViewBuilder content: () -> Content) { self.content = content() }
}
public struct LazyVStack<Content: View>: Holder {
    public var kind: String { "VStack" }
    public let content: Content
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) { self.content = content() }
}
public struct GridItem: Sendable {
    public enum Size: Sendable {
        case adaptive(minimum: CGFloat, maximum: CGFloat = .infinity)
        case flexible(minimum: CGFloat = 10, maximum: CGFloat = .infinity)
    }
    public init(_ size: Size = .flexible(), spacing: CGFloat? = nil, alignment: Alignment? = nil) {}
}
public struct LazyVGrid<Content: View>: Holder {
    public var kind: String { "Grid" }
    public let content: Content
    public init(
        columns: [GridItem], alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) {
        self.content = content()
    }
}
/// Builds all that might fit; tests look at the first.
public struct ViewThatFits<Content: View>: View, Primitive {
    public typealias Body = Never
    let content: Content
    public init(in axes: Axis.Set = [.horizontal, .vertical], @ViewBuilder content: () -> Content) { self.content = content() }
    public func nodes(_ place: Place) -> [Node] { Array(SwiftUI.nodes(content, place.child("fits")).prefix(1)) }
}
public struct ScrollView<Content: View>: Holder {
    public var kind: String { "ScrollView" }
    public let content: Content
    public init(
        _ axes: Axis.Set = .vertical, showsIndicators: Bool = true, @ViewBuilder content: () -> Content
    ) { self.content = content() }
}
public struct List<SelectionValue: Hashable, Content: View>: Holder {
    public var kind: String { "List" }
    public let content: Content
}
extension List where SelectionValue == Never {
    public init(@ViewBuilder content: () -> Content) { self.content = content() }
}
public struct Form<Content: View>: Holder {
    public var kind: String { "Form" }
    public let content: Content
    public init(@ViewBuilder content: () -> Content) { self.content = content() }
}
public struct NavigationStack<Data, Root: View>: Holder {
    public var kind: String { "NavigationStack" }
    public let content: Root
}
extension NavigationStack where Data == NavigationPath {
    public init(@ViewBuilder root: () -> Root) { content = root() }
}
public struct NavigationPath {}

/// Only groups: it is no node of its own.
public struct Group<Content> { let content: Content }
extension Group: View, Primitive where Content: View {
    public typealias Body = Never
    public var body: Never { fatalError("a primitive view has no body") }
    public init(@ViewBuilder content: () -> Content) { self.content = content() }
    public func nodes(_ place: Place) -> [Node] { SwiftUI.nodes(content, place.child("group")) }
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content> {
    public let data: Data
    public let identify: (Data.Element) -> ID
    public let content: (Data.Element) -> Content
    public init(_ data: Data, identify: @escaping (Data.Element) -> ID, content: @escaping (Data.Element) -> Content) {
        (self.data, self.identify, self.content) = (data, identify, content)
    }
}
extension ForEach: View where Content: View {
    public typealias Body = Never
    public var body: Never { fatalError("a primitive view has no body") }
}
extension ForEach: Primitive where Content: View {
    public init(_ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content) {
        self.init(data, identify: { $0[keyPath: id] }, content: content)
    }
    public func nodes(_ place: Place) -> [Node] {
        let names = data.map { "\(identify($0))" }
        precondition(Set(names).count == names.count, "two elements of a ForEach have one identity: \(names)")
        return zip(data, names).flatMap { SwiftUI.nodes(content($0), place.child("each \($1)")) }
    }
}
extension ForEach where Content: View, Data.Element: Identifiable, ID == Data.Element.ID {
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {
        self.init(data, identify: { $0.id }, content: content)
    }
}
extension ForEach where Content: View, Data == Range<Int>, ID == Int {
    public init(
        _ data: Range<Int>, @ViewBuilder content: @escaping (Int) -> Content
    ) { self.init(data, identify: { $0 }, content: content) }
}

public struct Section<Parent: View, Content: View, Footer: View>: View, Primitive {
    public typealias Body = Never
    let parent: Parent, content: Content, footer: Footer

    public func nodes(_ place: Place) -> [Node] {
        let heading = SwiftUI.nodes(parent, place.child("header"))
        heading.forEach { $0.traits.insert("isHeader") }
        let below = SwiftUI.nodes(footer, place.child("footer"))
        return [Node("Section", "", heading + SwiftUI.nodes(content, place.child("section")) + below)]
    }
}
extension Section {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent, @ViewBuilder footer: () -> Footer) {
        (parent, self.content, self.footer) = (header(), content(), footer())
    }
}
extension Section where Parent == EmptyView {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder footer: () -> Footer) {
        (parent, self.content, self.footer) = (EmptyView(), content(), footer())
    }
}
extension Section where Footer == EmptyView {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent) {
        (parent, self.content, footer) = (header(), content(), EmptyView())
    }
}
extension Section where Parent == EmptyView, Footer == EmptyView {
    public init(@ViewBuilder content: () -> Content) { (parent, self.content, footer) = (EmptyView(), content(), EmptyView()) }
}
extension Section where Parent == Text, Footer == EmptyView {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) {
        (parent, self.content, footer) = (Text(titleKey), content(), EmptyView())
    }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, @ViewBuilder content: () -> Content) {
        (parent, self.content, footer) = (Text(title), content(), EmptyView())
    }
}

/// The chosen tab alone is built, as the others are when they are first seen.
public struct TabView<SelectionValue: Hashable, Content: View>: View, Primitive {
    public typealias Body = Never
    let selection: Binding<SelectionValue>?
    let content: Content
    public init(
        selection: Binding<SelectionValue>?, @ViewBuilder content: () -> Content
    ) { (self.selection, self.content) = (selection, content()) }

    public func nodes(_ place: Place) -> [Node] {
        let tabs = SwiftUI.nodes(content, place.child("tabs"))
        let items = tabs.map { tab in
            let item = Node("Tab", "", tab.all("TabItem").first?.children ?? [])
            item.tag = tab.tag
            item.action = { if let value = tab.tag as? SelectionValue { selection?.wrappedValue = value } }
            if tab.tag == selection.map({ AnyHashable($0.wrappedValue) }) { item.traits.insert("isSelected") }
            return item
        }
        let shown = tabs.filter { $0.tag == selection.map { AnyHashable($0.wrappedValue) } }
        shown.forEach { tab in tab.children.removeAll { $0.kind == "TabItem" } }
        return [Node("TabView", "", items + shown)]
    }
}

/// Built as it is: what is folded away is not there.
public struct DisclosureGroup<Label: View, Content: View>: View, Primitive {
    public typealias Body = Never
    let label: Label, content: Content
    let isExpanded: Binding<Bool>?

    public func nodes(_ place: Place) -> [Node] {
        let open = "\(place.path)#open"
        place.host.used.insert(open)
        let cell = place.host.cells[open] as? Cell<Bool> ?? Cell(false)
        place.host.cells[open] = cell
        let expanded = isExpanded ?? Binding(get: { cell.value }, set: { cell.value = $0 })
        let button = Node("Disclosure", "", SwiftUI.nodes(label, place.child("label")))
        button.action = { expanded.wrappedValue.toggle() }
        return [Node("DisclosureGroup", "", [button] + (expanded.wrappedValue ? SwiftUI.nodes(content, place.child("disclosed")) : []))]
    }
}
extension DisclosureGroup where Label == Text {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) {
        (label, self.content, isExpanded) = (Text(titleKey), content(), nil)
    }
    public init(_ titleKey: LocalizedStringKey, isExpanded: Binding<Bool>, @ViewBuilder content: () -> Content) {
        (label, self.content, self.isExpanded) = (Text(titleKey), content(), isExpanded)
    }
}

public struct LabeledContent<Label: View, Content: View>: View, Primitive {
    public typealias Body = Never
    let label: Label, content: Content
    public init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label) { (self.label, self.content) = (label(), content()) }
    public func nodes(_ place: Place) -> [Node] {
        [Node("LabeledContent", "", SwiftUI.nodes(label, place.child("label")) + SwiftUI.nodes(content, place.child("content")))]
    }
}
extension LabeledContent where Label == Text {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) { (label, self.content) = (Text(titleKey), content()) }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, @ViewBuilder content: () -> Content) {
        (label, self.content) = (Text(title), content())
    }
}
extension LabeledContent where Label == Text, Content == Text {
    public init<S: StringProtocol>(_ titleKey: LocalizedStringKey, value: S) { (label, content) = (Text(titleKey), Text(value)) }
    @_disfavoredOverload public init<S1: StringProtocol, S2: StringProtocol>(
        _ title: S1, value: S2
    ) { (label, content) = (Text(title), Text(value)) }
}

public struct ContentUnavailableView<Label: View, Description: View, Actions: View>: View, Primitive {
    public typealias Body = Never
    let label: Label, description: Description, actions: Actions
    public func nodes(_ place: Place) -> [Node] {
        let parts = SwiftUI.nodes(label, place.child("label")) + SwiftUI.nodes(description, place.child("text"))
        return [Node("Unavailable", "", parts + SwiftUI.nodes(actions, place.child("actions")))]
    }
}
extension ContentUnavailableView where Label == SwiftUI.Label<Text, Image>, Description == Text?, Actions == EmptyView {
    public init(_ title: LocalizedStringKey, systemImage name: String, description: Text? = nil) {
        (label, self.description, actions) = (SwiftUI.Label(title, systemImage: name), description, EmptyView())
    }
}

public struct Spacer: View, Primitive {
    public typealias Body = Never
    public init(minLength: CGFloat? = nil) {}
    public func nodes(_ place: Place) -> [Node] { [] }
}
public struct Divider: View, Primitive {
    public typealias Body = Never
    public init() {}
    public func nodes(_ place: Place) -> [Node] { [] }
}
