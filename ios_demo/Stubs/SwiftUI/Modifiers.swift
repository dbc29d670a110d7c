// What is said of a view.

import UniformTypeIdentifiers

/// A view of whose nodes something is said, or around which something is put. `body`: what it comes to, given what `content` comes to.
public struct ModifiedContent<Content: View>: View, Primitive {
    public typealias Body = Never
    let content: Content
    let name: String
    let change: @MainActor ([Node], Place) -> [Node]
    public func nodes(_ place: Place) -> [Node] {
        let here = place.child(name)
        return change(SwiftUI.nodes(content, here), here)
    }
}

extension View {
    /// Something is said of each node.
    func said(_ name: String, _ change: @escaping @MainActor (Node) -> Void = { _ in }) -> ModifiedContent<Self> {
        ModifiedContent(content: self, name: name) { nodes, _ in
            for node in nodes { change(node) }
            return nodes
        }
    }

    /// All nodes become one, of which something is said.
    func wrapped(_ name: String, _ change: @escaping @MainActor (Node, Place) -> Void) -> ModifiedContent<Self> {
        ModifiedContent(content: self, name: name) { nodes, place in
            let node = nodes.count == 1 ? nodes[0] : Node("Wrapped", "", nodes)
            change(node, place)
            return [node]
        }
    }

    // How it looks
    public func font(_ font: Font?) -> some View { said("font") { $0.styles["font"] = font.map { "\($0.style)" } } }
    public func fontWeight(_ weight: Font.Weight?) -> some View { said("weight") }
    public func bold(_ isActive: Bool = true) -> some View { said("bold") }
    public func monospacedDigit() -> some View { said("digits") }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { said("foreground") { $0.styles["foreground"] = "\(style)" } }
    public func tint<S: ShapeStyle>(_ tint: S?) -> some View { said("tint") }
    public func opacity(_ opacity: Double) -> some View { said("opacity") }
    public func padding(_ edges: Edge.Set = .all, _ length: CGFloat? = nil) -> some View { said("padding") }
    public func padding(_ length: CGFloat) -> some View { said("padding") }
    public func frame(width: CGFloat? = nil, height: CGFloat? = nil, alignment: Alignment = .center) -> some View { said("frame") }
    public func frame(
        minWidth: CGFloat? = nil, idealWidth: CGFloat? = nil, maxWidth: CGFloat? = nil, minHeight: CGFloat? = nil,
        idealHeight: CGFloat? = nil, maxHeight: CGFloat? = nil, alignment: Alignment = .center
    ) -> some View { said("frame") }
    public func fixedSize(horizontal: Bool, vertical: Bool) -> some View { said("fixedSize") }
    public func layoutPriority(_ value: Double) -> some View { said("priority") }
    public func background<S: ShapeStyle, T: InsettableShape>(_ style: S, in shape: T) -> some View { said("background") }
    public func clipShape<S: Shape>(_ shape: S) -> some View { said("clip") }
    public func contentShape<S: Shape>(_ shape: S, eoFill: Bool = false) -> some View { said("shape") }
    public func overlay<V: View>(alignment: Alignment = .center, @ViewBuilder content: () -> V) -> some View {
        let over = content()
        return ModifiedContent(content: self, name: "overlay") { $0 + SwiftUI.nodes(over, $1.child("over")) }
    }
    public func multilineTextAlignment(_ alignment: TextAlignment) -> some View { said("alignment") }
    public func lineLimit(_ number: Int?) -> some View { said("lines") }
    public func lineLimit(_ limit: ClosedRange<Int>) -> some View { said("lines") }
    public func imageScale(_ scale: Image.Scale) -> some View { said("scale") }
    public func listRowSeparator(_ visibility: Visibility, edges: VerticalEdgeSet = .all) -> some View { said("separator") }
    public func animation<V: Equatable>(_ animation: Animation?, value: V) -> some View {
        said("animation") { $0.styles["animation"] = animation == nil ? "none" : "some" }
    }
    public func buttonStyle<S: PrimitiveButtonStyle>(_ style: S) -> some View { said("buttonStyle") }
    public func buttonBorderShape(_ shape: ButtonBorderShape) -> some View { said("borderShape") }
    public func controlSize(_ size: ControlSize) -> some View { said("controlSize") }
    public func pickerStyle<S: PickerStyle>(_ style: S) -> some View { said("pickerStyle") }
    public func textFieldStyle<S: TextFieldStyle>(_ style: S) -> some View { said("fieldStyle") }
    public func labelStyle<S: LabelStyle>(_ style: S) -> some View { said("labelStyle") }
    public func textSelection<S: TextSelectability>(_ selectability: S) -> some View { said("selection") }
    public func scrollDismissesKeyboard(_ mode: ScrollDismissesKeyboardMode) -> some View { said("keyboard") }
    public func defaultScrollAnchor(_ anchor: UnitPoint?) -> some View { said("anchor") }

    // What it does
    public func disabled(_ disabled: Bool) -> some View {
        said("disabled") { node in if disabled { node.all.forEach { $0.isEnabled = false } } }
    }
    public func tag<V: Hashable>(_ tag: V) -> some View { wrapped("tag") { node, _ in node.tag = AnyHashable(tag) } }
    public func onAppear(perform action: (@MainActor () -> Void)? = nil) -> some View {
        wrapped("appear") { _, place in if let action { place.host.noteAppearance(at: place.path, action) } }
    }
    public func onChange<V: Equatable>(of value: V, initial: Bool = false, _ action: @escaping @MainActor (V, V) -> Void) -> some View {
        wrapped("change") { _, place in place.host.noteChange(value, initial: initial, at: place.path, action) }
    }
    public func onChange<V: Equatable>(of value: V, initial: Bool = false, _ action: @escaping @MainActor () -> Void) -> some View {
        wrapped("change") { _, place in place.host.noteChange(value, initial: initial, at: place.path) { (_: V, _: V) in action() } }
    }
    public func onOpenURL(
        perform action: @escaping @MainActor (URL) -> Void
    ) -> some View { wrapped("url") { node, _ in node.openURL = action } }
    public func onSubmit(of triggers: SubmitTriggers = .text, _ action: @escaping @MainActor () -> Void) -> some View {
        said("submit") { node in node.all("TextField").forEach { $0.action = action } }
    }
    public func submitLabel(_ label: SubmitLabel) -> some View { said("submitLabel") }
    public func focused(_ condition: FocusState<Bool>.Binding) -> some View { said("focused") }
    public func environment<V>(_ keyPath: WritableKeyPath<EnvironmentValues, V>, _ value: V) -> some View {
        let content = self
        return ModifiedContent(content: EmptyView(), name: "environment") { _, place in
            let before = EnvironmentValues.current
            defer { EnvironmentValues.current = before }
            EnvironmentValues.current[keyPath: keyPath] = value
            return SwiftUI.nodes(content, place)
        }
    }

    // What is put around it
    public func navigationTitle(_ titleKey: LocalizedStringKey) -> some View {
        wrapped("title") { node, _ in
            let title = Node("Title", titleKey.string)
            title.traits = ["isHeader"]
            node.children.insert(title, at: 0)
        }
    }
    public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View {
        let label = label()
        return wrapped("tab") { node, place in node.children.append(Node("TabItem", "", SwiftUI.nodes(label, place.child("item")))) }
    }
    public func toolbar<Content: ToolbarContent>(@ToolbarContentBuilder content: () -> Content) -> some View {
        let content = content()
        return wrapped("toolbar") { $0.children += content.toolbarNodes($1.child("toolbar")) }
    }
    public func safeAreaInset<V: View>(
        edge: VerticalEdge, alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> V
    ) -> some View {
        let content = content()
        return wrapped("inset") { $0.children.append(Node("Inset", "", SwiftUI.nodes(content, $1.child("inset")))) }
    }
    public func swipeActions<T: View>(
        edge: HorizontalEdge = .trailing, allowsFullSwipe: Bool = true, @ViewBuilder content: () -> T
    ) -> some View {
        let content = content()
        return wrapped("swipe") { $0.children.append(Node("Swipe", "", SwiftUI.nodes(content, $1.child("swipe")))) }
    }
    public func contextMenu<M: View>(@ViewBuilder menuItems: () -> M) -> some View {
        let items = menuItems()
        return wrapped("context") { $0.children.append(Node("ContextMenu", "", SwiftUI.nodes(items, $1.child("context")))) }
    }

    // What comes over it
    public func sheet<Item: Identifiable, Content: View>(
        item: Binding<Item?>, onDismiss: (() -> Void)? = nil, @ViewBuilder content: @escaping (Item) -> Content
    ) -> some View {
        wrapped("sheet") { node, place in
            guard let shown = item.wrappedValue else { return }
            let before = EnvironmentValues.current
            defer { EnvironmentValues.current = before }
            let dismiss: @MainActor () -> Void = { item.wrappedValue = nil }
            EnvironmentValues.current.dismiss = DismissAction(handler: dismiss)
            let sheet = Node("Sheet", "", SwiftUI.nodes(content(shown), place.child("sheet")))
            sheet.action = dismiss
            node.children.append(sheet)
        }
    }
    public func alert<A: View, M: View>(
        _ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, @ViewBuilder actions: () -> A, @ViewBuilder message: () -> M
    ) -> some View { over("Alert", titleKey.string, isPresented, actions(), message()) }
    @_disfavoredOverload public func alert<S: StringProtocol, A: View>(
        _ title: S, isPresented: Binding<Bool>, @ViewBuilder actions: () -> A
    ) -> some View { over("Alert", String(title), isPresented, actions(), EmptyView()) }
    public func alert<A: View>(_ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, @ViewBuilder actions: () -> A) -> some View {
        over("Alert", titleKey.string, isPresented, actions(), EmptyView())
    }
    public func alert<A: View, M: View, T>(
        _ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, presenting data: T?, @ViewBuilder actions: (T) -> A,
        @ViewBuilder message: (T) -> M
    ) -> some View { over("Alert", titleKey.string, isPresented, data.map(actions), data.map(message)) }
    public func confirmationDialog<A: View, M: View>(
        _ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, titleVisibility: Visibility = .automatic, @ViewBuilder actions: () -> A,
        @ViewBuilder message: () -> M
    ) -> some View { over("Dialog", titleKey.string, isPresented, actions(), message()) }
    @_disfavoredOverload public func confirmationDialog<S: StringProtocol, A: View, M: View>(
        _ title: S, isPresented: Binding<Bool>, titleVisibility: Visibility = .automatic, @ViewBuilder actions: () -> A,
        @ViewBuilder message: () -> M
    ) -> some View { over("Dialog", String(title), isPresented, actions(), message()) }

    public func confirmationDialog<A: View, M: View, T>(
        _ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, titleVisibility: Visibility = .automatic, presenting data: T?,
        @ViewBuilder actions: (T) -> A, @ViewBuilder message: (T) -> M
    ) -> some View { over("Dialog", titleKey.string, isPresented, data.map(actions), data.map(message)) }
    @_disfavoredOverload public func confirmationDialog<S: StringProtocol, A: View, M: View, T>(
        _ title: S, isPresented: Binding<Bool>, titleVisibility: Visibility = .automatic, presenting data: T?,
        @ViewBuilder actions: (T) -> A, @ViewBuilder message: (T) -> M
    ) -> some View { over("Dialog", String(title), isPresented, data.map(actions), data.map(message)) }

    /// A tap on any of its buttons ends it.
    private func over<A: View, M: View>(
        _ kind: String, _ title: String, _ isPresented: Binding<Bool>, _ actions: A, _ message: M
    ) -> ModifiedContent<Self> {
        wrapped(kind) { node, place in
            guard isPresented.wrappedValue else { return }
            let buttons = SwiftUI.nodes(actions, place.child("actions"))
            for button in buttons.flatMap({ $0.all("Button") }) {
                let action = button.action
                button.action = {
                    isPresented.wrappedValue = false
                    action?()
                }
            }
            node.children.append(Node(kind, title, SwiftUI.nodes(message, place.child("message")) + buttons))
        }
    }

    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType], onCompletion: @escaping @MainActor (Result<URL, any Error>) -> Void
    ) -> some View {
        wrapped("importer") { node, _ in
            guard isPresented.wrappedValue else { return }
            let picker = Node("FileImporter")
            picker.current = allowedContentTypes
            picker.picked = { result in
                isPresented.wrappedValue = false
                onCompletion(result.map { $0[0] })
            }
            node.children.append(picker)
        }
    }

    // What VoiceOver says of it
    public func accessibilityLabel(
        _ labelKey: LocalizedStringKey
    ) -> some View { wrapped("label") { node, _ in node.label = labelKey.string } }
    @_disfavoredOverload public func accessibilityLabel<S: StringProtocol>(_ label: S) -> some View {
        wrapped("label") { node, _ in node.label = String(label) }
    }
    public func accessibilityLabel(_ label: Text) -> some View { wrapped("label") { node, _ in node.label = label.string } }
    public func accessibilityValue(
        _ valueKey: LocalizedStringKey
    ) -> some View { wrapped("value") { node, _ in node.value = valueKey.string } }
    @_disfavoredOverload public func accessibilityValue<S: StringProtocol>(_ value: S) -> some View {
        wrapped("value") { node, _ in node.value = String(value) }
    }
    public func accessibilityHint(_ hintKey: LocalizedStringKey) -> some View { wrapped("hint") { node, _ in node.hint = hintKey.string } }
    public func accessibilityHidden(
        _ hidden: Bool
    ) -> some View {
        said("hidden") { node in if hidden { node.all.forEach { $0.isHidden = true } } }
    }
    public func accessibilityElement(children: AccessibilityChildBehavior = .ignore) -> some View {
        wrapped("element") { node, _ in node.ignoresChildren = children == .ignore }
    }
    public func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View {
        wrapped("traits") { node, _ in node.traits.formUnion(traits.names) }
    }
    public func accessibilityIdentifier(_ identifier: String) -> some View { wrapped("id") { node, _ in node.identifier = identifier } }
}
