// What views keep and read.

/// A property that the host keeps for a view that is built anew.
@MainActor protocol Kept {
    func keep(_ host: AnyViewHost, _ key: String)
}

final class Cell<Value>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
}

/// Leads to the cell that the host has, once the view is in a tree.
final class Slot<Value>: @unchecked Sendable {
    var cell: Cell<Value>
    init(_ value: Value) { cell = Cell(value) }
}

@MainActor private func keep<Value>(_ slot: Slot<Value>, _ host: AnyViewHost, _ key: String) {
    host.used.insert(key)
    if let kept = host.cells[key] as? Cell<Value> { slot.cell = kept } else { host.cells[key] = slot.cell }
}

@MainActor @propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
    let get: @MainActor () -> Value
    let set: @MainActor (Value) -> Void

    public init(get: @escaping @MainActor () -> Value, set: @escaping @MainActor (Value) -> Void) { (self.get, self.set) = (get, set) }
    public static func constant(_ value: Value) -> Binding<Value> { Binding(get: { value }, set: { _ in }) }

    public var wrappedValue: Value {
        get { get() }
        nonmutating set { set(newValue) }
    }
    public var projectedValue: Binding<Value> { self }

    public subscript<Subject>(dynamicMember keyPath: WritableKeyPath<Value, Subject>) -> Binding<Subject> {
        Binding<Subject>(get: { get()[keyPath: keyPath] }, set: { subject in
            var value = get()
            value[keyPath: keyPath] = subject
            set(value)
        })
    }
}

@MainActor @propertyWrapper public struct State<Value>: Kept {
    nonisolated let slot: Slot<Value>

    nonisolated public init(wrappedValue: Value) { slot = Slot(wrappedValue) }
    nonisolated public init(initialValue: Value) { slot = Slot(initialValue) }

    public var wrappedValue: Value {
        get { slot.cell.value }
        nonmutating set { slot.cell.value = newValue }
    }
    public var projectedValue: Binding<Value> {
        let slot = slot
        return Binding(get: { slot.cell.value }, set: { slot.cell.value = $0 })
    }

    func keep(_ host: AnyViewHost, _ key: String) { SwiftUI.keep(slot, host, key) }
}

extension State where Value: ExpressibleByNilLiteral {
    nonisolated public init() { slot = Slot(nil) }
}

@MainActor @propertyWrapper public struct FocusState<Value: Hashable>: Kept {
    nonisolated let slot: Slot<Value>

    public init() where Value == Bool { slot = Slot(false) }

    public var wrappedValue: Value {
        get { slot.cell.value }
        nonmutating set { slot.cell.value = newValue }
    }
    public var projectedValue: Binding {
        let slot = slot
        return Binding(get: { slot.cell.value }, set: { slot.cell.value = $0 })
    }

    func keep(_ host: AnyViewHost, _ key: String) { SwiftUI.keep(slot, host, key) }

    @MainActor @propertyWrapper public struct Binding {
        let get: @MainActor () -> Value
        let set: @MainActor (Value) -> Void
        public var wrappedValue: Value {
            get { get() }
            nonmutating set { set(newValue) }
        }
        public var projectedValue: Binding { self }
    }
}

@MainActor @propertyWrapper @dynamicMemberLookup public struct Bindable<Value> {
    public var wrappedValue: Value

    public init(wrappedValue: Value) where Value: AnyObject, Value: Observable { self.wrappedValue = wrappedValue }
    public init(_ wrappedValue: Value) where Value: AnyObject, Value: Observable { self.wrappedValue = wrappedValue }

    public var projectedValue: Bindable<Value> { self }

    public subscript<Subject>(dynamicMember keyPath: ReferenceWritableKeyPath<Value, Subject>) -> Binding<Subject> where Value: AnyObject {
        let object = wrappedValue
        return Binding(get: { object[keyPath: keyPath] }, set: { object[keyPath: keyPath] = $0 })
    }
}

/// A length that grows with the person's letters; here it does not.
@MainActor @propertyWrapper public struct ScaledMetric<Value: BinaryFloatingPoint> {
    public let wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public init(wrappedValue: Value, relativeTo textStyle: Font.TextStyle) { self.wrappedValue = wrappedValue }
}

public enum ScenePhase: Comparable, Sendable { case background, inactive, active }

public struct OpenURLAction: Sendable {
    public struct Result: Sendable { public static let handled = Result(), systemAction = Result(), discarded = Result() }

    let handler: @MainActor @Sendable (URL) -> Result
    public init(handler: @escaping @MainActor @Sendable (URL) -> Result) { self.handler = handler }
    @MainActor public func callAsFunction(_ url: URL) { _ = handler(url) }
}

public struct DismissAction: Sendable {
    let handler: @MainActor @Sendable () -> Void
    @MainActor public func callAsFunction() { handler() }
}

public enum LayoutDirection: Hashable, Sendable, CaseIterable { case leftToRight, rightToLeft }

public enum DynamicTypeSize: Hashable, Comparable, CaseIterable, Sendable {
    case xSmall, small, medium, large, xLarge, xxLarge, xxxLarge
    case accessibility1, accessibility2, accessibility3, accessibility4, accessibility5
    public var isAccessibilitySize: Bool { self >= .accessibility1 }
}

public struct EnvironmentValues {
    /// Where the tree is built now.
    @MainActor static var current = EnvironmentValues()

    public var scenePhase = ScenePhase.active
    public var openURL = OpenURLAction { _ in .systemAction }
    public var dismiss = DismissAction {}
    public var accessibilityReduceMotion = false
    public var accessibilityDifferentiateWithoutColor = false
    public var dynamicTypeSize = DynamicTypeSize.large
    public var layoutDirection = LayoutDirection.leftToRight
    public var locale = Locale(identifier: "en")
    public init() {}
}

/// What was there where the view was built, also for what its buttons do later.
@MainActor @propertyWrapper public struct Environment<Value>: Kept {
    let keyPath: KeyPath<EnvironmentValues, Value>
    let read = Slot<Value?>(nil)

    public init(_ keyPath: KeyPath<EnvironmentValues, Value>) { self.keyPath = keyPath }
    public var wrappedValue: Value { read.cell.value ?? EnvironmentValues.current[keyPath: keyPath] }

    func keep(_ host: AnyViewHost, _ key: String) { read.cell.value = EnvironmentValues.current[keyPath: keyPath] }
}
