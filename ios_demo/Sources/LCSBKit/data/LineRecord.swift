/// What is wrong with one line, without a file's name; `encoding`: its bytes are no text of UTF-8.
struct LineFault: Error, Sendable {
    let reason: String
    let encoding: Bool

    init(_ reason: String, encoding: Bool = false) { (self.reason, self.encoding) = (reason, encoding) }
}

/// One line of a data file, of one of three forms.
enum Line: Sendable {
    /// Every token is counted, the end token too; the first has nothing before it that could predict it.
    case text(String)
    /// The completion and the end token are counted.
    case completion(prompt: String, completion: String)
    /// The assistant's turns are counted, with the tokens that end them. What follows the last of them is dropped.
    case chat([Message])
}

let forms = #"{"text"}, {"prompt", "completion"} or {"messages"}"#
private let shownCharacters = 200  // of what a stranger's file says, in an error
private let utf16 = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
private let formKeys: [[ByteText]] = [["text"], ["prompt", "completion"], ["messages"]]

/// The record of a line, whose end may be with it. Throws LineFault with what was expected and found.
func decodeLine(_ raw: Bytes) throws -> Line {
    let start = try checkedStart(raw)
    let text = raw.part(start, raw.count - start)
    if text.units.first(where: { !isJsonBlank($0) }) != UInt8(ascii: "{") && isBlankText(text) {
        throw LineFault("a blank line; expected \(forms)")
    }
    var (keys, fields): ([ByteText], [ByteText: Field]) = ([], [:])
    do {
        let json = JsonReader(text)
        try json.members { name in
            let key = ByteText(name)
            if fields.updateValue(try field(key, json), forKey: key) == nil { keys.append(key) }
        }
        try json.finish()
    } catch let error as JsonError {
        throw LineFault("not JSON: \(error.reason)")
    }
    return try record(keys, fields)
}

/// Where the text of a line begins: editors on Windows put a byte order mark before the first. Throws LineFault for what is not UTF-8.
func checkedStart(_ raw: Bytes) throws -> Int {
    try withExtendedLifetime(raw) {
        let bytes = raw.units
        let start = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
        if let first = bytes.first, bytes.count >= 2 {
            let pair = (first, bytes[1])
            if pair == (0xFF, 0xFE) || pair == (0xFE, 0xFF) && bytes.count > 2 || pair.0 == 0 || pair.1 == 0 {
                throw LineFault(utf16, encoding: true)
            }
        }
        guard let fault = Utf8.firstFault(bytes, start, bytes.count) else { return start }
        let reason = "\(Utf8.reason(bytes, fault, bytes.count)) at byte \(fault - start)"
        throw LineFault("not UTF-8: \(reason); save the file as UTF-8", encoding: true)
    }
}

extension Bytes {
    /// Its bytes, as long as it is there.
    var units: UnsafeBufferPointer<UInt8> { raw.assumingMemoryBound(to: UInt8.self) }
}

private func isJsonBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D }

/// Of what is UTF-8: whether Python's `str.strip` would leave nothing.
private func isBlankText(_ text: Bytes) -> Bool { String(decoding: text.units, as: UTF8.self).unicodeScalars.allSatisfy(isPythonBlank) }

/// A field's value: text, messages or what is wrong with them, or of anything else the kind.
private enum Field {
    case text(String)
    case messages(Result<[Message], LineFault>)
    case other(String)

    var kind: String {
        switch self {
        case .text: "a string"
        case .messages: "an array"
        case .other(let kind): kind
        }
    }
}

private func field(_ key: ByteText, _ json: JsonReader) throws -> Field {
    switch try json.peek() {
    case UInt8(ascii: "\""): return .text(try json.string())
    case UInt8(ascii: "[") where key == "messages": return .messages(try readMessages(json))
    default:
        let kind = try json.kind()
        try json.skip()
        return .other(kind)
    }
}

/// `keys`: in the line's order.
private func record(_ keys: [ByteText], _ fields: [ByteText: Field]) throws -> Line {
    let found = formKeys.filter { $0.contains { fields[$0] != nil } }
    guard found.count == 1, let form = found.first else {
        let names = keys.sorted().prefix(shownCharacters).map { quoted($0.string, shownCharacters) }.joined(separator: ", ")
        throw LineFault("expected the keys of \(forms), found \(names.isEmpty ? "none" : oneLine(names, shownCharacters))")
    }
    if let unknown = keys.first(where: { !form.contains($0) }) {
        let known = form.map(\.string).joined(separator: " and ")
        throw LineFault("\(quoted(unknown.string, shownCharacters)): an unknown key beside \(known)")
    }
    if let missing = form.first(where: { fields[$0] == nil }) { throw LineFault("\(missing): missing") }
    switch form {
    case formKeys[0]: return .text(try text("text", fields))
    case formKeys[1]: return .completion(prompt: try text("prompt", fields), completion: try text("completion", fields))
    default: return .chat(try messages(fields["messages"]!))
    }
}

private func text(_ name: ByteText, _ fields: [ByteText: Field]) throws -> String {
    guard case .text(let text) = fields[name]! else { throw LineFault("\(name): expected a string, found \(fields[name]!.kind)") }
    if text.isEmpty { throw LineFault("\(name): expected text, found an empty string") }
    return text
}

private func messages(_ value: Field) throws -> [Message] {
    guard case .messages(let read) = value else { throw LineFault("messages: expected an array, found \(value.kind)") }
    let messages = try read.get()
    if messages.contains(where: \.role.isEmpty) { throw LineFault("messages[].role: expected text, found an empty string") }
    if messages.allSatisfy(\.content.isEmpty) { throw LineFault("messages: expected text, found an empty string") }
    return messages
}

/// Reads an array of {"role", "content"}; the first fault takes the place of the list, as a later key of the same name may still replace
/// both.
private func readMessages(_ json: JsonReader) throws -> Result<[Message], LineFault> {
    var (messages, fault): ([Message], LineFault?) = ([], nil)
    var index = 0
    try json.array {
        let (message, wrong) = try readMessage(json, "messages[\(index)]")
        if let message { messages.append(message) }
        if fault == nil, let wrong { fault = LineFault(wrong) }
        index += 1
    }
    return fault.map(Result.failure) ?? .success(messages)
}

/// A message, or the first that is wrong with it.
private func readMessage(_ json: JsonReader, _ place: String) throws -> (Message?, String?) {
    if try json.peek() != UInt8(ascii: "{") {
        let kind = try json.kind()
        try json.skip()
        return (nil, "\(place): expected an object, found \(kind)")
    }
    var (fields, fault): ([ByteText: String], String?) = ([:], nil)
    try json.members { name in
        let key = ByteText(name)
        if key != "role" && key != "content" {
            fault = fault ?? "\(place): \(quoted(key.string, shownCharacters)): an unknown key"
            try json.skip()
        } else if try json.peek() != UInt8(ascii: "\"") {
            fault = try fault ?? "\(place).\(key): expected a string, found \(json.kind())"
            try json.skip()
        } else {
            fields[key] = try json.string()
        }
    }
    for name in ["role", "content"] as [ByteText] where fields[name] == nil { fault = fault ?? "\(place).\(name): missing" }
    return fault == nil ? (Message(role: fields["role"]!, content: fields["content"]!), nil) : (nil, fault)
}
