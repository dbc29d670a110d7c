// What a person taps, writes in, or moves.

public struct ButtonRole: Equatable, Sendable {
    let name: String
    public static let destructive = ButtonRole(name: "destructive"), cancel = ButtonRole(name: "cancel")
}

@MainActor private func tappable(_ kind: String, _ children: [Node], _ action: @escaping @MainActor () -> Void) -> Node {
    let node = Node(kind, "", children)
    node.action = action
    return node
}

@MainActor private func changeable<Value>(_ kind: String, _ label: [Node], _ binding: Binding<Value>) -> Node {
    let node = Node(kind, "", label)
    node.current = binding.wrappedValue
    node.change = { value in
        guard let value = value as? Value else { fatalError("\(kind): \(type(of: value)) for \(Value.self)") }
        binding.wrappedValue = value
    }
    return node
}

public struct Button<Label: View>: View, Primitive {
    public typealias Body = Never
    let role: ButtonRole?
    let action: @MainActor () -> Void
    let label: Label

    public init(
        action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label
    ) { (role, self.action, self.label) = (nil, action, label()) }
    public init(role: ButtonRole?, action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label) {
        (self.role, self.action, self.label) = (role, action, label())
    }

    public func nodes(_ place: Place) -> [Node] {
        let node = tappable("Button", SwiftUI.nodes(label, place.child("button")), action)
        if let role { node.traits.insert(role.name) }
        return [node]
    }
}
extension Button where Label == Text {
    public init(_ titleKey: LocalizedStringKey, action: @escaping @MainActor () -> Void) { self.init(action: action) { Text(titleKey) } }
    public init(_ titleKey: LocalizedStringKey, role: ButtonRole?, action: @escaping @MainActor () -> Void) {
        self.init(role: role, action: action) { Text(titleKey) }
    }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, action: @escaping @MainActor () -> Void) {
        self.init(action: action) { Text(title) }
    }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, role: ButtonRole?, action: @escaping @MainActor () -> Void) {
        self.init(role: role, action: action) { Text(title) }
    }
}
extension Button where Label == SwiftUI.Label<Text, Image> {
    public init(_ titleKey: LocalizedStringKey, systemImage: String, action: @escaping @MainActor () -> Void) {
        self.init(action: action) { SwiftUI.Label(titleKey, systemImage: systemImage) }
    }
    public init(_ titleKey: LocalizedStringKey, systemImage: String, role: ButtonRole?, action: @escaping @MainActor () -> Void) {
        self.init(role: role, action: action) { SwiftUI.Label(titleKey, systemImage: systemImage) }
    }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, systemImage: String, action: @escaping @MainActor () -> Void) {
        self.init(action: action) { SwiftUI.Label(title, systemImage: systemImage) }
    }
}

public struct Toggle<Label: View>: View, Primitive {
    public typealias Body = Never
    let isOn: Binding<Bool>
    let label: Label
    public init(isOn: Binding<Bool>, @ViewBuilder label: () -> Label) { (self.isOn, self.label) = (isOn, label()) }
    public func nodes(_ place: Place) -> [Node] {
        let node = changeable("Toggle", SwiftUI.nodes(label, place.child("toggle")), isOn)
        node.action = { isOn.wrappedValue.toggle() }
        node.value = isOn.wrappedValue ? "1" : "0"
        return [node]
    }
}
extension Toggle where Label == Text {
    public init(_ titleKey: LocalizedStringKey, isOn: Binding<Bool>) { self.init(isOn: isOn) { Text(titleKey) } }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, isOn: Binding<Bool>) { self.init(isOn: isOn) { Text(title) } }
}

public struct Slider<Label: View, ValueLabel: View>: View, Primitive {
    public typealias Body = Never
    let make: @MainActor (Place) -> Node
    public func nodes(_ place: Place) -> [Node] { [make(place)] }
}
extension Slider where ValueLabel == EmptyView {
    public init<V: BinaryFloatingPoint>(value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1, @ViewBuilder label: () -> Label)
    where V.Stride: BinaryFloatingPoint {
        let label = label()
        make = { changeable("Slider", SwiftUI.nodes(label, $0.child("slider")), value) }
    }
}

public struct Picker<Label: View, SelectionValue: Hashable, Content: View>: View, Primitive {
    public typealias Body = Never
    let selection: Binding<SelectionValue>
    let content: Content
    let label: Label
    public init(selection: Binding<SelectionValue>, @ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label) {
        (self.selection, self.content, self.label) = (selection, content(), label())
    }
    public func nodes(_ place: Place) -> [Node] {
        let choices = SwiftUI.nodes(content, place.child("choices"))
        for choice in choices {
            precondition(choice.tag is SelectionValue, "a choice without a tag of \(SelectionValue.self): \(choice.spoken)")
            if choice.tag == AnyHashable(selection.wrappedValue) { choice.traits.insert("isSelected") }
        }
        let node = changeable("Picker", SwiftUI.nodes(label, place.child("picker")), selection)
        let menu = Node("Choices", "", choices)
        node.value = choices.first { $0.traits.contains("isSelected") }?.spoken
        return [Node("PickerWithChoices", "", [node, menu])]
    }
}
extension Picker where Label == Text {
    public init(_ titleKey: LocalizedStringKey, selection: Binding<SelectionValue>, @ViewBuilder content: () -> Content) {
        self.init(selection: selection, content: content) { Text(titleKey) }
    }
}

public struct TextField<Label: View>: View, Primitive {
    public typealias Body = Never
    let text: Binding<String>
    let label: Label
    public func nodes(_ place: Place) -> [Node] { [changeable("TextField", SwiftUI.nodes(label, place.child("field")), text)] }
}
extension TextField where Label == Text {
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>) { (self.text, label) = (text, Text(titleKey)) }
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>, axis: Axis) { (self.text, label) = (text, Text(titleKey)) }
}

public struct ProgressView<Label: View, CurrentValueLabel: View>: View, Primitive {
    public typealias Body = Never
    let label: Label
    let fraction: Double?
    public func nodes(_ place: Place) -> [Node] {
        let node = Node("ProgressView", "", SwiftUI.nodes(label, place.child("progress")))
        node.current = fraction
        return [node]
    }
}
extension ProgressView where CurrentValueLabel == EmptyView {
    public init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0) where Label == EmptyView {
        (label, fraction) = (EmptyView(), value.map { Double($0 / total) })
    }
    public init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0, @ViewBuilder label: () -> Label) {
        (self.label, fraction) = (label(), value.map { Double($0 / total) })
    }
    public init() where Label == EmptyView { (label, fraction) = (EmptyView(), nil) }
    public init(@ViewBuilder label: () -> Label) { (self.label, fraction) = (label(), nil) }
    public init(_ titleKey: LocalizedStringKey) where Label == Text { (label, fraction) = (Text(titleKey), nil) }
}

public struct Menu<Label: View, Content: View>: View, Primitive {
    public typealias Body = Never
    let label: Label, content: Content
    public init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label) { (self.label, self.content) = (label(), content()) }
    public func nodes(_ place: Place) -> [Node] {
        let button = Node("MenuButton", "", SwiftUI.nodes(label, place.child("label")))
        return [Node("Menu", "", [button] + SwiftUI.nodes(content, place.child("menu")))]
    }
}

public struct ShareLink<Data, PreviewImage, PreviewIcon, Label: View>: View, Primitive {
    public typealias Body = Never
    let item: URL
    let label: Label
    public func nodes(_ place: Place) -> [Node] {
        let node = Node("ShareLink", "", SwiftUI.nodes(label, place.child("share")))
        node.current = item
        return [node]
    }
}
extension ShareLink where Data == CollectionOfOne<URL>, PreviewImage == Never, PreviewIcon == Never {
    public init(
        item: URL, subject: Text? = nil, message: Text? = nil, @ViewBuilder label: () -> Label
    ) { (self.item, self.label) = (item, label()) }
}

/// The system's own button, with the system's word on it.
public struct PasteButton: View, Primitive {
    public typealias Body = Never
    let paste: @MainActor ([String]) -> Void
    public init(payloadType: String.Type, onPaste: @escaping @MainActor ([String]) -> Void) { paste = onPaste }
    public func nodes(_ place: Place) -> [Node] {
        let node = Node("PasteButton")
        node.label = "Paste"
        node.change = { if let texts = $0 as? [String] { paste(texts) } }
        return [node]
    }
}
