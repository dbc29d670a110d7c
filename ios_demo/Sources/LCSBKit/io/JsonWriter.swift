/// Values as JSON text on one line, in ASCII.
extension Json {
    package static func integer(_ value: Int) -> Json { .number("\(value)") }

    /// JSON has no number for what is not finite: null.
    package static func double(_ value: Double) -> Json { value.isFinite ? .number(pythonRepr(value)) : .null }

    static func optional<Value>(_ value: Value?, _ json: (Value) -> Json) -> Json { value.map(json) ?? .null }

    static func list<Value>(_ values: [Value], _ json: (Value) -> Json) -> Json { .array(values.map(json)) }

    package var text: String {
        switch self {
        case .object(let members): "{" + members.map { asciiJson($0.key) + ":" + $0.value.text }.joined(separator: ",") + "}"
        case .array(let elements): "[" + elements.map(\.text).joined(separator: ",") + "]"
        case .string(let text): asciiJson(text)
        case .number(let text): text
        case .bool(let value): value ? "true" : "false"
        case .null: "null"
        }
    }
}
