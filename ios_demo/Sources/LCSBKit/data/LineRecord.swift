/// What is wrong with one line, without a file's name; `encoding`: its bytes are no text of UTF-8.
struct LineFault: Error, Sendable {
    let reason: String
    let encoding: Bool

    init(_ reason: String, encoding: Bool = false) { (self.reason, self.encoding) = (reason, encoding) }
}

/// What one line of a data file says. ShareGPT's and Alpaca's forms are conversations by other names (docs/data.md).
enum Line: Sendable {
    /// Every token is counted, the end token too; the first has nothing before it that could predict it.
    case text(String)
    /// The completion and the end token are counted.
    case completion(prompt: String, completion: String)
    /// The assistant's turns are counted, with the tokens that end them. What follows the last of them is dropped.
    case chat([Message])
}

let forms = #"{"text"}, {"prompt", "completion"}, {"messages"}, {"conversations"} or {"instruction", "output"}"#
private let turnForms = #"{"role", "content"} or {"from", "value"}"#
private let shownCharacters = 200  // of what a stranger's file says, in an error
private let keyCharacters = 40  // of a key that is passed over, in the report
let utf16Fault = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
private let alpacaKeys: [ByteText] = ["instruction", "output"]

/// What each form must have, and what it may have beside that.
let formKeys: [[ByteText]] = [["text"], ["prompt", "completion"], ["messages"], ["conversations"], alpacaKeys]
private let optionalKeys: [ByteText: [ByteText]] = [
    "messages": ["system"], "conversations": ["system"], "instruction": ["input", "system", "history"],
]
private let knownKeys = Set(formKeys.joined()).union(optionalKeys.values.joined())
private let turnKeys: [[ByteText]] = [["role", "content"], ["from", "value"]]

/// `from` of ShareGPT. Tools' calls and results are refused: each template has a way of its own.
private let shareGptRoles: [ByteText: String] = [
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
]

/// Whether a line has no text.
func isBlankLine(_ raw: Bytes) -> Bool {
    let start = hasMark(raw) ? 3 : 0
    let text = raw.part(start, raw.count - start)
    return withExtendedLifetime(text) { text.units.first(where: { !isJsonBlank($0) }) != UInt8(ascii: "{") && isBlankText(text) }
}

/// The record of a line, whose end may be with it, and the keys that were passed over, in their order, each once; of a turn as
/// `messages[].name`. Throws LineFault with what was expected and found.
func decodeLine(_ raw: Bytes) throws -> (line: Line, furtherKeys: [String]) {
    let start = try checkedStart(raw)
    if isBlankLine(raw) { throw LineFault("a blank line; expected \(forms)") }
    var (keys, fields): ([ByteText], [ByteText: Json]) = ([], [:])
    do {
        let json = JsonReader(raw.part(start, raw.count - start))
        try json.members { name in
            let key = ByteText(name)
            var value = Json.null
            if knownKeys.contains(key) { value = try json.tree() } else { try json.skip() }
            if fields.updateValue(value, forKey: key) == nil { keys.append(key) }
        }
        try json.finish()
    } catch let error as JsonError {
        throw LineFault("not JSON: \(error.reason)")
    }
    var reader = RecordReader(keys: keys, fields: fields)
    return try reader.read()
}

private func hasMark(_ raw: Bytes) -> Bool { withExtendedLifetime(raw) { raw.units.starts(with: [0xEF, 0xBB, 0xBF]) } }

/// Where the text of a line begins: editors on Windows put a byte order mark before the first. Throws LineFault for what is not UTF-8.
func checkedStart(_ raw: Bytes) throws -> Int {
    try withExtendedLifetime(raw) {
        let bytes = raw.units
        let start = hasMark(raw) ? 3 : 0
        if let first = bytes.first, bytes.count >= 2 {
            let pair = (first, bytes[1])
            if pair == (0xFF, 0xFE) || pair == (0xFE, 0xFF) && bytes.count > 2 || pair.0 == 0 || pair.1 == 0 {
                throw LineFault(utf16Fault, encoding: true)
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

/// Makes a line's record of its fields, and gathers the keys that are passed over. Each part throws LineFault.
private struct RecordReader {
    /// In the line's order.
    let keys: [ByteText]
    let fields: [ByteText: Json]
    private var further: [String] = []

    init(keys: [ByteText], fields: [ByteText: Json]) { (self.keys, self.fields) = (keys, fields) }

    mutating func read() throws -> (line: Line, furtherKeys: [String]) {
        let form = try self.form()
        let known = form + (optionalKeys[form[0]] ?? [])
        further = keys.filter { !known.contains($0) }.map(\.string)
        let line: Line
        switch form {
        case ["text"]: line = .text(try nonempty("text"))
        case ["prompt", "completion"]: line = .completion(prompt: try nonempty("prompt"), completion: try nonempty("completion"))
        default:
            let messages = try withSystem(form == alpacaKeys ? alpaca() : turns(form[0]))
            if messages.allSatisfy(\.content.isEmpty) { throw LineFault("\(form[0]): expected text, found an empty string") }
            line = .chat(messages)
        }
        var seen: Set<ByteText> = []
        return (line, further.map(shownKey).filter { seen.insert(ByteText($0)).inserted })
    }

    private func form() throws -> [ByteText] {
        let found = formKeys.filter { $0.allSatisfy { fields[$0] != nil } }
        if found.count == 1 { return found[0] }
        if found.isEmpty { throw LineFault("expected the keys of \(forms), found \(names(keys))") }
        throw LineFault("more than one form: expected the keys of one of \(forms), found \(names(Array(found.joined())))")
    }

    /// The conversation of `messages` or `conversations`.
    private mutating func turns(_ name: ByteText) throws -> [Message] {
        guard case .array(let turns) = fields[name]! else { throw LineFault("\(name): expected an array, found \(fields[name]!.kind)") }
        if turns.isEmpty { throw LineFault("\(name): expected at least one turn, found an empty array") }
        var messages: [Message] = []
        for (index, turn) in turns.enumerated() { messages.append(try message("\(name)[\(index)]", turn, name)) }
        return messages
    }

    private mutating func message(_ place: String, _ turn: Json, _ name: ByteText) throws -> Message {
        guard case .object(let members) = turn else { throw LineFault("\(place): expected an object, found \(turn.kind)") }
        var (keys, values): ([ByteText], [ByteText: Json]) = ([], [:])
        for (key, value) in members where values.updateValue(value, forKey: ByteText(key)) == nil { keys.append(ByteText(key)) }
        let found = turnKeys.filter { $0.allSatisfy { values[$0] != nil } }
        guard found.count == 1, let form = found.first else {
            throw LineFault("\(place): expected the keys of \(turnForms), found \(names(keys))")
        }
        var role = try string("\(place).\(form[0])", values[form[0]]!)
        let content = try string("\(place).\(form[1])", values[form[1]]!)
        if role.isEmpty { throw LineFault("\(place).\(form[0]): expected text, found an empty string") }
        if form[0] == "from" {
            guard let ours = shareGptRoles[ByteText(role)] else {
                throw LineFault("\(place).from: expected system, human or gpt, found \(names([ByteText(role)]))")
            }
            role = ours
        }
        further += keys.filter { !form.contains($0) }.map { "\(name)[].\($0)" }
        return Message(role: role, content: content)
    }

    /// The pairs of `history`, then instruction and input, a line each, as the user's turn, and the output as the assistant's.
    private func alpaca() throws -> [Message] {
        var turns: [Message] = []
        if let history = fields["history"], !history.isNull {
            guard case .array(let pairs) = history else { throw LineFault("history: expected an array, found \(history.kind)") }
            for (index, pair) in pairs.enumerated() {
                guard let texts = pair.array, texts.count == 2 else {
                    throw LineFault("history[\(index)]: expected an array of two strings")
                }
                turns.append(Message(role: "user", content: try string("history[\(index)][0]", texts[0])))
                turns.append(Message(role: "assistant", content: try string("history[\(index)][1]", texts[1])))
            }
        }
        let instruction = try string("instruction", fields["instruction"]!)
        let output = try string("output", fields["output"]!)
        let question = [instruction, try optional("input")].filter { !$0.isEmpty }.joined(separator: "\n")
        return turns + [Message(role: "user", content: question), Message(role: "assistant", content: output)]
    }

    /// With the text of `system` before it, unless the conversation begins with such a turn: then that one counts.
    private mutating func withSystem(_ turns: [Message]) throws -> [Message] {
        let system = try optional("system")
        if system.isEmpty { return turns }
        if turns[0].role != "system" { return [Message(role: "system", content: system)] + turns }
        further.append("system")
        return turns
    }

    private func nonempty(_ name: ByteText) throws -> String {
        let text = try string(name.string, fields[name]!)
        if text.isEmpty { throw LineFault("\(name): expected text, found an empty string") }
        return text
    }

    /// Libraries write null for what a record does not have.
    private func optional(_ name: ByteText) throws -> String {
        guard let value = fields[name], !value.isNull else { return "" }
        return try string(name.string, value)
    }
}

private func string(_ name: String, _ value: Json) throws -> String {
    guard case .string(let text) = value else { throw LineFault("\(name): expected a string, found \(value.kind)") }
    return text
}

private func names(_ keys: [ByteText]) -> String {
    let names = keys.sorted().prefix(shownCharacters).map { quoted($0.string, shownCharacters) }.joined(separator: ", ")
    return names.isEmpty ? "none" : oneLine(names, shownCharacters)
}

private func shownKey(_ key: String) -> String {
    let scalars = key.unicodeScalars
    return scalars.count <= keyCharacters ? key : String(String.UnicodeScalarView(scalars.prefix(keyCharacters))) + "…"
}
