/// Values by name, in the order in which they were listed, so that what is said of them is the same each time.
public struct Entries<Value>: Sequence {
    private var list: [(key: String, value: Value)] = []
    private var places: [String: Int] = [:]

    /// Of two entries of one name the last counts.
    init(_ entries: some Sequence<(key: String, value: Value)>) {
        for (name, value) in entries { self[name] = value }
    }

    init(_ names: some Sequence<String>, _ value: (String) throws -> Value) rethrows { try self.init(names.map { ($0, try value($0)) }) }

    public var keys: [String] { list.map(\.key) }
    public var values: [Value] { list.map(\.value) }
    public var count: Int { list.count }
    public var isEmpty: Bool { list.isEmpty }

    public func makeIterator() -> IndexingIterator<[(key: String, value: Value)]> { list.makeIterator() }

    public func contains(_ name: String) -> Bool { places[name] != nil }

    public subscript(name: String) -> Value? {
        get { places[name].map { list[$0].value } }
        set {
            switch (places[name], newValue) {
            case (let place?, let value?): list[place].value = value
            case (nil, let value?):
                places[name] = list.count
                list.append((name, value))
            case (let place?, nil):
                list.remove(at: place)
                places = Dictionary(uniqueKeysWithValues: list.enumerated().map { ($1.key, $0) })
            case (nil, nil): break
            }
        }
    }

    func only(_ isWanted: (String) -> Bool) -> Entries { Entries(list.filter { isWanted($0.key) }) }

    func mapKeys(_ renamed: (String) -> String) -> Entries { Entries(list.map { (renamed($0.key), $0.value) }) }

    func mapValues<Other>(_ changed: (Value) throws -> Other) rethrows -> Entries<Other> {
        Entries<Other>(try list.map { ($0.key, try changed($0.value)) })
    }

    static func + (a: Entries, b: Entries) -> Entries { Entries(a.list + b.list) }
}

extension Entries: Sendable where Value: Sendable {}

extension Entries: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, Value)...) { self.init(elements.map { ($0.0, $0.1) }) }
}

extension Fields {
    /// A record within this one, or whatever `read` makes of a value.
    mutating func value<Value>(_ name: String, _ read: (Json, String) throws -> Value) throws -> Value {
        try read(required(name), place(name))
    }

    /// Likewise, where it may be missing.
    mutating func optional<Value>(_ name: String, _ read: (Json, String) throws -> Value) throws -> Value? {
        let place = place(name)
        return try optional(name).map { try read($0, place) }
    }

    mutating func ordered<Value>(_ name: String, _ read: (Json, String) throws -> Value) throws -> Entries<Value> {
        Entries(try entries(name, read))
    }

    /// A whole number below 2^31, of what is multiplied or summed before more is known of it.
    mutating func small(_ name: String) throws -> Int { try value(name, Self.small) }

    static func small(_ value: Json, _ place: String) throws -> Int {
        let number = try int(value, place)
        if Int32(exactly: number) == nil { throw RecordError("\(place): expected a whole number below 2^31, found \(number)") }
        return number
    }
}
