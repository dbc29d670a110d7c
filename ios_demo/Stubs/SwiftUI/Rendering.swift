// A stand-in for SwiftUI: see ../README.md for what it does not prove. This file: what a view comes to, as tests look at it.
@_exported import Foundation
@_exported import Observation

/// What a view came to. `text`: drawn by itself. `label`, `value`, `hint`: said by VoiceOver in place of what is drawn.
@MainActor public final class Node {
    public let kind: String
    public var text: String
    public var children: [Node]
    public var label: String?
    public var value: String?
    public var hint: String?
    public var identifier: String?
    public var traits: Set<String> = []
    /// VoiceOver passes it by, or what is in it.
    public var isHidden = false
    public var ignoresChildren = false
    public var isEnabled = true
    /// Colours and fonts by modifier, for tests of what is not to be said by colour alone.
    public var styles: [String: String] = [:]
    /// What tapping it does.
    public var action: (@MainActor () -> Void)?
    /// What is in a field, a picker or a switch, and how it is changed.
    public var current: Any?
    public var change: (@MainActor (Any) -> Void)?
    /// Of a picker, a tag a choice.
    public var tag: AnyHashable?
    /// Of a file importer: hands over what was picked.
    public var picked: (@MainActor (Result<[URL], any Error>) -> Void)?
    public var openURL: (@MainActor (URL) -> Void)?

    public init(
        _ kind: String, _ text: String = "", _ children: [Node] = []
    ) { (self.kind, self.text, self.children) = (kind, text, children) }

    /// It and all below it, as drawn.
    public var all: [Node] { [self] + children.flatMap(\.all) }

    /// What VoiceOver says of it: its label, else the texts in it.
    public var spoken: String {
        if isHidden { return "" }
        if let label { return label }
        if ignoresChildren { return "" }
        return ([text] + children.map(\.spoken)).filter { !$0.isEmpty }.joined(separator: ", ")
    }

    /// What is read on the screen.
    public var texts: [String] { all.map(\.text).filter { !$0.isEmpty } }

    public func all(_ kind: String) -> [Node] { all.filter { $0.kind == kind } }

    /// Of that kind and called that, by what is drawn or what is said.
    public func first(_ kind: String, _ name: String? = nil) -> Node? {
        all(kind).first { name == nil || $0.spoken == name || $0.texts.contains(name!) }
    }

    public var outline: String { lines("").joined(separator: "\n") }

    private func lines(_ indent: String) -> [String] {
        let words = [text.isEmpty ? nil : "\"\(text)\"", label.map { "label: \($0)" }, value.map { "value: \($0)" }]
        let said = words + [isEnabled ? nil : "disabled"]
        let line = indent + ([kind] + said.compactMap { $0 }).joined(separator: " ")
        return [line] + children.flatMap { $0.lines(indent + "  ") }
    }
}

/// The place of a view in the tree, which is what its state is kept by.
@MainActor public struct Place {
    unowned let host: AnyViewHost
    let path: String

    func child(_ name: String) -> Place { Place(host: host, path: path + "/" + name) }
}

/// A view that is no composition of others.
@MainActor public protocol Primitive {
    func nodes(_ place: Place) -> [Node]
}

/// What `view` comes to: several nodes where it only groups.
@MainActor public func nodes<V: View>(_ view: V, _ place: Place) -> [Node] {
    if let primitive = view as? any Primitive { return primitive.nodes(place) }
    let here = place.child("\(V.self)")
    for (number, child) in Mirror(reflecting: view).children.enumerated() {
        (child.value as? any Kept)?.keep(here.host, "\(here.path)#\(number)")
    }
    return nodes(view.body, here)
}

@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Self.Body { get }
}

extension Never: View {
    public typealias Body = Never
    public var body: Never { fatalError("a primitive view has no body") }
}

extension View where Body == Never {
    public var body: Never { fatalError("a primitive view has no body") }
}

public struct EmptyView: View, Primitive {
    public typealias Body = Never
    public init() {}
    public func nodes(_ place: Place) -> [Node] { [] }
}

public struct AnyView: View, Primitive {
    public typealias Body = Never
    let make: @MainActor (Place) -> [Node]
    public init<V: View>(_ view: V) { make = { SwiftUI.nodes(view, $0) } }
    public func nodes(_ place: Place) -> [Node] { make(place) }
}

extension Optional: View where Wrapped: View {
    public typealias Body = Never
    public var body: Never { fatalError("a primitive view has no body") }
}

extension Optional: Primitive where Wrapped: View {
    public func nodes(_ place: Place) -> [Node] { map { SwiftUI.nodes($0, place.child("some")) } ?? [] }
}

public struct _ConditionalContent<TrueContent, FalseContent> {
    enum Which { case first(TrueContent), second(FalseContent) }
    let which: Which
}

extension _ConditionalContent: View where TrueContent: View, FalseContent: View {
    public typealias Body = Never
    public var body: Never { fatalError("a primitive view has no body") }
}

extension _ConditionalContent: Primitive where TrueContent: View, FalseContent: View {
    public func nodes(_ place: Place) -> [Node] {
        switch which {
        case .first(let view): SwiftUI.nodes(view, place.child("true"))
        case .second(let view): SwiftUI.nodes(view, place.child("false"))
        }
    }
}

public struct TupleView<T>: View, Primitive {
    public typealias Body = Never
    let parts: [@MainActor (Place) -> [Node]]
    public func nodes(_ place: Place) -> [Node] { parts.enumerated().flatMap { $1(place.child("\($0)")) } }
}

@MainActor private func part<V: View>(_ view: V) -> @MainActor (Place) -> [Node] { { nodes(view, $0) } }

@resultBuilder @MainActor public enum ViewBuilder {
    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
    public static func buildBlock() -> EmptyView { EmptyView() }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { content }

    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> TupleView<(repeat each Content)> {
        var parts: [@MainActor (Place) -> [Node]] = []
        repeat parts.append(part(each content))
        return TupleView(parts: parts)
    }

    public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
    public static func buildEither<A: View, B: View>(first: A) -> _ConditionalContent<A, B> { .init(which: .first(first)) }
    public static func buildEither<A: View, B: View>(second: B) -> _ConditionalContent<A, B> { .init(which: .second(second)) }
    public static func buildLimitedAvailability<Content: View>(_ content: Content) -> AnyView { AnyView(content) }
}

/// What keeps the state of a tree between two times that it is built.
@MainActor public class AnyViewHost {
    var cells: [String: AnyObject] = [:]
    var used: Set<String> = []
    var seen: [String: Any] = [:]
    /// What is to be done after this building: what changed or appeared.
    var after: [@MainActor () -> Void] = []

    func noteChange<V: Equatable>(_ value: V, initial: Bool, at path: String, _ action: @escaping @MainActor (V, V) -> Void) {
        used.insert(path)
        let old = seen[path] as? V
        seen[path] = value
        if let old, old != value { after.append { action(old, value) } }
        if old == nil && initial { after.append { action(value, value) } }
    }

    func noteAppearance(at path: String, _ action: @escaping @MainActor () -> Void) {
        used.insert(path)
        if seen.updateValue(true, forKey: path) == nil { after.append(action) }
    }
}

/// A window with one view in it, for tests: builds it, finds things in it, taps them.
@MainActor public final class ViewHost<Root: View>: AnyViewHost {
    public private(set) var root = Node("Window")
    public var environment = EnvironmentValues()
    let view: Root

    public init(_ view: Root, environment: EnvironmentValues = EnvironmentValues()) {
        (self.view, self.environment) = (view, environment)
        super.init()
        update()
    }

    /// Builds all anew, until nothing changes by that any more.
    @discardableResult public func update() -> Node {
        for _ in 0..<10 {
            (used, after) = ([], [])
            EnvironmentValues.current = environment
            root = Node("Window", "", nodes(view, Place(host: self, path: "")))
            cells = cells.filter { used.contains($0.key) }
            seen = seen.filter { used.contains($0.key) }
            if after.isEmpty { return root }
            for action in after { action() }
        }
        fatalError("the screen changes itself each time that it is built")
    }

    /// Taps what is called that. Nil: there is no such thing, or it is disabled.
    @discardableResult public func tap(_ name: String, _ kind: String = "Button", number: Int = 0) -> Bool? {
        let found = update().all(kind).filter { ($0.spoken == name || $0.texts.contains(name)) && $0.isEnabled && $0.action != nil }
        guard number < found.count else { return nil }
        found[number].action!()
        update()
        return true
    }

    /// Writes into a field, moves a slider, chooses of a picker, by its name.
    @discardableResult public func set<Value>(_ name: String, to value: Value) -> Bool? {
        let found = update().all.first { ($0.spoken == name || $0.label == name || $0.text == name) && $0.change != nil && $0.isEnabled }
        guard let found else { return nil }
        found.change!(value)
        update()
        return true
    }
}
