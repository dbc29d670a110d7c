/// What is wrong with a record, without a file's name.
struct RecordError: Error, Sendable {
    let reason: String

    init(_ reason: String) { self.reason = reason }
}

/// The fields of one of our own objects, whose names are as the desktop writes them: a field that is missing without a default, mistyped or
/// unknown is an error. Take each, then `finish`. Throws RecordError.
struct Fields {
    private let what: String
    private var left: [String: Json] = [:]

    /// `what`: the place of the object in words or as a path, for errors.
    init(_ value: Json, _ what: String) throws {
        guard case .object(let members) = value else { throw RecordError("\(what): expected an object, found \(value.kind)") }
        self.what = what
        for (name, member) in members { left[name] = member }
    }

    /// Where a field stands, for errors.
    func place(_ name: String) -> String { "\(what).\(name)" }

    mutating func optional(_ name: String) -> Json? {
        guard let value = left.removeValue(forKey: name), !value.isNull else { return nil }
        return value
    }

    mutating func required(_ name: String) throws -> Json {
        guard let value = left.removeValue(forKey: name) else { throw RecordError("\(what): has no \(name)") }
        return value
    }

    mutating func string(_ name: String) throws -> String { try Self.string(required(name), place(name)) }
    mutating func int(_ name: String) throws -> Int { try Self.int(required(name), place(name)) }
    mutating func double(_ name: String) throws -> Double { try Self.double(required(name), place(name)) }
    mutating func bool(_ name: String) throws -> Bool { try Self.bool(required(name), place(name)) }
    mutating func ints(_ name: String) throws -> [Int] { try list(name, Self.int) }
    mutating func strings(_ name: String) throws -> [String] { try list(name, Self.string) }

    /// An array, whose elements `read` is given with their places.
    mutating func list<Element>(_ name: String, _ read: (Json, String) throws -> Element) throws -> [Element] {
        try Self.list(required(name), place(name), read)
    }

    /// An object of any keys, in order.
    mutating func entries<Element>(_ name: String, _ read: (Json, String) throws -> Element) throws -> [(key: String, value: Element)] {
        try Self.entries(required(name), place(name), read)
    }

    mutating func dictionary<Element>(_ name: String, _ read: (Json, String) throws -> Element) throws -> [String: Element] {
        try Dictionary(entries(name, read).map { ($0.key, $0.value) }) { _, last in last }
    }

    func finish() throws {
        if let unknown = left.keys.min() { throw RecordError("\(what): unknown field \(quoted(unknown, 80))") }
    }

    // Values by themselves, with the place that they stand at.

    static func string(_ value: Json, _ place: String) throws -> String { try value.string ?? wrong(value, place, "a string") }
    static func int(_ value: Json, _ place: String) throws -> Int { try value.int ?? wrong(value, place, "a whole number") }
    static func double(_ value: Json, _ place: String) throws -> Double { try value.double ?? wrong(value, place, "a number") }
    static func bool(_ value: Json, _ place: String) throws -> Bool { try value.bool ?? wrong(value, place, "true or false") }

    static func list<Element>(_ value: Json, _ place: String, _ read: (Json, String) throws -> Element) throws -> [Element] {
        guard let elements = value.array else { return try wrong(value, place, "an array") }
        return try elements.enumerated().map { try read($1, "\(place)[\($0)]") }
    }

    static func entries<Element>(
        _ value: Json, _ place: String, _ read: (Json, String) throws -> Element
    ) throws -> [(key: String, value: Element)] {
        guard let members = value.object else { return try wrong(value, place, "an object") }
        return try members.map { ($0.key, try read($0.value, "\(place).\(oneLine($0.key, 80))")) }
    }

    /// One of an enumeration's names.
    static func one<Case: RawRepresentable & CaseIterable>(_ value: Json, _ place: String) throws -> Case where Case.RawValue == String {
        let names = Case.allCases.map(\.rawValue).joined(separator: ", ")
        guard let found = try Case(rawValue: string(value, place)) else { return try wrong(value, place, "one of \(names)") }
        return found
    }

    private static func wrong<Value>(_ value: Json, _ place: String, _ expected: String) throws -> Value {
        var found = value.kind
        if case .number(let text) = value { found = oneLine(text, 40) }
        if case .string(let text) = value { found = quoted(text, 80) }
        throw RecordError("\(place): expected \(expected), found \(found)")
    }
}
