import Foundation

/// One message of a conversation; `role`: system, user or assistant.
struct Message: Sendable {
    let role: String
    let content: String
}

/// How a role's message is written. `trimmed`: its content without blanks at both ends.
struct ChatTurn: Sendable {
    let before: [UInt8]
    let after: [UInt8]
    let trimmed: Bool
}

/// A thought stands in an assistant's content between the marks that `open` and `close` hold. It is written, between them, in turns after
/// the last question: in the conversation's last turn even where it is empty, in others where there is one. Elsewhere it is left out.
///
/// `withoutQuestion`: a conversation without a user's turn is all after the last question. `strips`: where a thought is written, the answer
/// loses the ends of lines before it even if it came without a thought.
struct ChatThoughts: Sendable {
    let open: [UInt8]
    let close: [UInt8]
    let withoutQuestion: Bool
    let strips: Bool
}

/// `chat.json`: field by field lcsb_mobile/text/chat_format.py's ChatFormat, which says what each means.
struct ChatFields: Sendable {
    let formatVersion: Int
    let empty: [UInt8]?
    let opening: [UInt8]
    let system: ChatTurn?
    let systemInNext: Bool
    let laterSystem: ChatTurn?
    let user: ChatTurn
    let assistant: ChatTurn
    let generationPrompt: [UInt8]
    let alternates: Bool
    let thoughts: ChatThoughts?
    let dateFormat: String?
}

/// A conversation's text, the ranges of its UTF-8 that count for the loss, and how many of the assistant's turns could not be found in it.
struct RenderedChat: Sendable {
    let text: String
    let counted: [Range<Int>]
    let uncountedTurns: Int
}

/// Messages that a chat format does not take.
struct ChatRefusal: Error, Sendable {
    let reason: String

    init(_ reason: String) { self.reason = reason }
}

private let system = "system"
private let user = "user"
private let assistant = "assistant"
private let newline = UInt8(ascii: "\n")

/// A model's chat template as data: exporting a bundle proves that it writes the same. The twin of export/chat_format.py's `render`.
public struct ChatFormat: Sendable {
    private let fields: ChatFields
    private let now: LocalTime?

    /// Of the day on which it is asked for, or of a run's.
    private var today: [UInt8]? { fields.dateFormat.map { Array(date($0, now ?? LocalTime()).utf8) } }

    static let file = "chat.json"
    static let fileBytes = 1 << 16
    private static let formatVersion = 1
    private static let mostMessages = 1000  // of a line: each of the assistant's turns is found by rendering the conversation up to it
    private static let dateMark = Array("\u{E000}".utf8)

    init(_ fields: ChatFields, now: LocalTime? = nil) { (self.fields, self.now) = (fields, now) }

    /// As on the day of `time`, a LocalTime's text, whatever day it is.
    func at(_ time: String) -> ChatFormat { ChatFormat(fields, now: LocalTime(time)) }

    /// The conversation as the model reads it; it writes its own special tokens, the one of beginning too. Throws CHAT_UNSUPPORTED for
    /// messages that the model's template does not take, or whose roles it knows nothing of.
    func render(_ messages: [Message], addGenerationPrompt: Bool = false) throws -> String {
        do {
            return String(decoding: try text(messages, addGenerationPrompt), as: UTF8.self)
        } catch let error as ChatRefusal {
            throw LcsbError(.chatUnsupported, error.reason, [error.reason])
        }
    }

    /// The conversation through the assistant's last turn, and which of its turns count (docs/data.md). Throws ChatRefusal, also where that
    /// turn cannot be found.
    func conversation(_ messages: [Message]) throws -> RenderedChat {
        let answers = messages.indices.filter { messages[$0].role == assistant }
        guard let last = answers.last else {
            throw ChatRefusal("messages: expected at least one with the role '\(assistant)', found none")
        }
        if messages.count > Self.mostMessages {
            let found = "found \(messages.count); give the conversation in parts, a line each"
            throw ChatRefusal("messages: expected at most \(Self.mostMessages), \(found)")
        }
        let turns = Array(messages[...last])
        let text = try text(turns, false)
        let counted = try answers.dropLast().compactMap { try earlierTurn(Array(turns[...$0]), text) } + [lastTurn(turns, text)]
        return RenderedChat(text: String(decoding: text, as: UTF8.self), counted: counted, uncountedTurns: answers.count - counted.count)
    }

    /// Where the last turn stands in `text`, the conversation: what the model is to write after the generation prompt.
    private func lastTurn(_ turns: [Message], _ text: [UInt8]) throws -> Range<Int> {
        let before = try self.text(turns.dropLast(), true)
        if text.starts(with: before) { return before.count..<text.count }
        let place = "messages[\(turns.count - 1)], so that turn cannot be found"
        throw ChatRefusal("the chat template rewrites earlier text at \(place); give it as prompt and completion")
    }

    /// Where the last of `turns` stands in `text`, which goes on after it. nil when it is not there as the model writes it: some templates
    /// shorten a turn once others follow it, and to count the short form would teach the model to write that.
    private func earlierTurn(_ turns: [Message], _ text: [UInt8]) throws -> Range<Int>? {
        do {
            let through = try self.text(turns, false)
            return text.starts(with: through) ? try lastTurn(turns, through) : nil
        } catch is ChatRefusal {
            return nil  // some refuse a conversation that ends there
        }
    }

    private func text(_ messages: some Collection<Message>, _ addGenerationPrompt: Bool) throws -> [UInt8] {
        var text: [UInt8] = []
        if messages.isEmpty {
            guard let empty = fields.empty else { throw refused("a conversation without messages") }
            text += empty
        } else {
            try write(Array(messages), &text)
        }
        return addGenerationPrompt ? text + fields.generationPrompt : text
    }

    private func write(_ messages: [Message], _ text: inout [UInt8]) throws {
        let roles = [system, user, assistant]
        if let other = messages.first(where: { !roles.contains($0.role) }) {
            throw refused("the role \(quoted(other.role, 40)); expected \(roles.joined(separator: ", "))")
        }
        if fields.thoughts != nil && messages.contains(where: isTools) {
            throw refused("a user's message that its template takes for a tool's")
        }
        var inNext: [UInt8] = []  // the system's text that stands in the next turn
        let first = messages[0].role == system ? 1 : 0
        if first == 0 {
            text += dated(fields.opening)
        } else {
            guard let turn = fields.system else { throw refused("a system's message") }
            text += dated(turn.before)
            let content = content(turn, messages[0].content) + turn.after
            if fields.systemInNext { inNext = content } else { text += content }
        }
        let question = messages.lastIndex { $0.role == user }
        for index in first..<messages.count {
            try writeTurn(messages, index, index - first, question, index == first ? inNext : [], &text)
        }
    }

    /// Qwen3's template takes such a turn of the user not for a question, so that thoughts before it stay.
    private func isTools(_ message: Message) -> Bool {
        let content = message.content.utf8
        let end = "</tool_response>".utf8
        return message.role == user && content.starts(with: "<tool_response>".utf8) && content.suffix(end.count).elementsEqual(end)
    }

    private func writeTurn(
        _ messages: [Message], _ index: Int, _ place: Int, _ question: Int?, _ inNext: [UInt8], _ text: inout [UInt8]
    ) throws {
        let message = messages[index]
        if fields.alternates && message.role != (place % 2 == 0 ? user : assistant) { throw refused("user and assistant must take turns") }
        let turn = message.role == system ? fields.laterSystem : message.role == user ? fields.user : fields.assistant
        guard let turn else { throw refused("a system's message that is not the first") }
        text += turn.before + inNext
        if let thoughts = fields.thoughts, message.role == assistant {
            let after = question.map { index > $0 } ?? thoughts.withoutQuestion
            writeThought(thoughts, Array(message.content.utf8), after, index == messages.count - 1, &text)
        } else {
            text += content(turn, message.content)
        }
        text += turn.after
    }

    private func writeThought(_ thoughts: ChatThoughts, _ content: [UInt8], _ after: Bool, _ last: Bool, _ text: inout [UInt8]) {
        let (open, close) = (thoughts.open.trimmed(newline), thoughts.close.trimmed(newline))
        var thought: [UInt8] = []
        var answer = content
        if let end = content.first(of: close, in: 0, content.count), let lastEnd = content.last(of: close) {
            let before = Array(content[..<end])
            thought = Array(before[(before.last(of: open).map { $0 + open.count } ?? 0)...]).trimmed(newline)
            answer = Array(content[(lastEnd + close.count)...]).trimmedStart(newline)
        }
        if after && (last || !thought.isEmpty) {
            text += thoughts.open + thought + thoughts.close
            if thoughts.strips { answer = answer.trimmedStart(newline) }
        }
        text += answer
    }

    private func content(_ turn: ChatTurn, _ content: String) -> [UInt8] { Array((turn.trimmed ? content.strip() : content).utf8) }

    private func dated(_ text: [UInt8]) -> [UInt8] { today.map { text.replacing(Self.dateMark, with: $0) } ?? text }

    private func refused(_ what: String) -> ChatRefusal { ChatRefusal("the chat template refused the messages: \(what)") }

    /// Reads `chat.json`. Throws BUNDLE_DAMAGED, or CHAT_UNSUPPORTED for what a newer export wrote.
    static func open(_ file: URL) throws -> ChatFormat {
        func damaged(_ reason: String) -> LcsbError { LcsbError(.bundleDamaged, "\(file.path): \(reason)", [file.lastPathComponent]) }
        let fields: ChatFields
        do {
            let json = try JsonReader(readBounded(file, fileBytes))
            let tree = try json.tree(unique: true)
            try json.finish()
            fields = try ChatFields(tree)
        } catch let error as IoError {
            throw damaged("cannot be read: \(error.reason); copy the bundle again, whole")
        } catch let error as JsonError {
            throw damaged("not a chat format: \(error.reason); export the bundle again")
        } catch let error as RecordError {
            throw damaged("not a chat format: \(error.reason); export the bundle again")
        }
        let unknown = fields.dateFormat.flatMap { pieces($0).first { $0.first == "%" && directives[$0] == nil } }
        if fields.formatVersion == formatVersion && unknown == nil { return ChatFormat(fields) }
        let version = "version \(fields.formatVersion), this app reads \(formatVersion)"
        let what = unknown.map { "a date with \(quoted(String(String.UnicodeScalarView($0)), 8))" } ?? version
        throw LcsbError(.chatUnsupported, "\(file.path): \(what); use an app as new as the export", [file.lastPathComponent])
    }
}

extension ChatFields {
    /// Throws RecordError.
    fileprivate init(_ tree: Json) throws {
        var fields = try Fields(tree, ChatFormat.file)
        formatVersion = try fields.int("format_version")
        empty = try nullable(&fields, "empty", bytes)
        opening = try bytes(fields.required("opening"), fields.place("opening"))
        system = try nullable(&fields, "system", ChatTurn.init)
        systemInNext = try fields.bool("system_in_next")
        laterSystem = try nullable(&fields, "later_system", ChatTurn.init)
        user = try ChatTurn(fields.required("user"), fields.place("user"))
        assistant = try ChatTurn(fields.required("assistant"), fields.place("assistant"))
        generationPrompt = try bytes(fields.required("generation_prompt"), fields.place("generation_prompt"))
        alternates = try fields.bool("alternates")
        thoughts = try nullable(&fields, "thoughts", ChatThoughts.init)
        dateFormat = try nullable(&fields, "date_format", Fields.string)
        try fields.finish()
    }
}

extension ChatTurn {
    fileprivate init(_ tree: Json, _ place: String) throws {
        var fields = try Fields(tree, place)
        before = try bytes(fields.required("before"), fields.place("before"))
        after = try bytes(fields.required("after"), fields.place("after"))
        trimmed = try fields.bool("trimmed")
        try fields.finish()
    }
}

extension ChatThoughts {
    fileprivate init(_ tree: Json, _ place: String) throws {
        var fields = try Fields(tree, place)
        open = try bytes(fields.required("open"), fields.place("open"))
        close = try bytes(fields.required("close"), fields.place("close"))
        withoutQuestion = try fields.bool("without_question")
        strips = try fields.bool("strips")
        try fields.finish()
    }
}

/// A field that must be there and may be null.
private func nullable<Value>(_ fields: inout Fields, _ name: String, _ read: (Json, String) throws -> Value) throws -> Value? {
    let value = try fields.required(name)
    return value.isNull ? nil : try read(value, fields.place(name))
}

private func bytes(_ value: Json, _ place: String) throws -> [UInt8] { Array(try Fields.string(value, place).utf8) }

/// What C's strftime calls a day's parts in English.
private let directives: [[Unicode.Scalar]: @Sendable (LocalTime) -> String] = [
    ["%", "d"]: { padded("\($0.day)", 2) },
    ["%", "m"]: { padded("\($0.month)", 2) },
    ["%", "Y"]: { "\($0.year)" },
    ["%", "b"]: { String(months[$0.month - 1].prefix(3)) },
    ["%", "B"]: { months[$0.month - 1] },
]
private let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
]

/// A date's format in parts: directives, which begin with a per cent sign, and single characters.
private func pieces(_ format: String) -> [[Unicode.Scalar]] {
    var pieces: [[Unicode.Scalar]] = []
    for scalar in format.unicodeScalars {
        if pieces.last == ["%"] { pieces[pieces.count - 1].append(scalar) } else { pieces.append([scalar]) }
    }
    return pieces
}

/// A day as C's strftime writes it in English.
private func date(_ format: String, _ day: LocalTime) -> String {
    pieces(format).map { directives[$0]?(day) ?? String(String.UnicodeScalarView($0)) }.joined()
}
