// One line of a data file to one example: tokens, and which of them count for the loss. Specification: docs/data.md.
//
// A label stands at the position that predicts it: `labels[t]` is the token after t. What a label counts for depends on the form of the
// line: all of a `text`, the completion of a `prompt`, the assistant's turns of a conversation.

enum Form: Sendable { case text, completion, messages }

/// Two arrays of one length. `labels[t]` is the token after position t where it is counted, else -100. The last label is ignored, unless
/// the example was truncated: then the token after the last position is known.
struct Example: Sendable {
    let inputIds: [Int]
    let labels: [Int]

    var countedLabels: Int { labels.reduce(0) { $1 == Int(ignoredLabel) ? $0 : $0 + 1 } }

    /// Its first `length` tokens.
    func cut(_ length: Int) -> Example { Example(inputIds: Array(inputIds.prefix(length)), labels: Array(labels.prefix(length))) }
}

/// One line's example, not truncated. `uncountedTurns`: those of the assistant that its chat format does not let be found.
/// `doubledEnds`: as `hasDoubledEnds`. `furtherKeys`: those of the line that were passed over.
struct LineExample: Sendable {
    let example: Example
    let form: Form
    var uncountedTurns = 0
    var doubledEnds = false
    var furtherKeys: [String] = []
}

/// Tokenises one line. Throws LineFault, or LcsbError of the tokenizer or the chat format, without a file's name.
func readLine(_ raw: Bytes, _ tokenizer: Tokenizer, _ chat: ChatFormat?) throws -> LineExample {
    let (line, further) = try decodeLine(raw)
    var found = try read(line, tokenizer, chat)
    found.doubledEnds = hasDoubledEnds(found.example.inputIds, tokenizer.bosId, tokenizer.eosId)
    found.furtherKeys = further
    return found
}

/// Whether an example begins with two tokens of beginning, or two of end stand together in it: its text held one, and got another.
func hasDoubledEnds(_ ids: [Int], _ bosId: Int?, _ eosId: Int?) -> Bool {
    if let bosId, ids.starts(with: [bosId, bosId]) { return true }
    return zip(ids, ids.dropFirst()).contains { $0 == eosId && $1 == eosId }
}

private func read(_ line: Line, _ tokenizer: Tokenizer, _ chat: ChatFormat?) throws -> LineExample {
    switch line {
    case .text(let text):
        return LineExample(example: example(try tokenizer.encodeDocument(text)) { _ in true }, form: .text)
    case .completion(let prompt, let completion):
        // Apart, not as one text: a prompt's tokens must be those that generating from the prompt will give the model.
        let before = try tokenizer.encodePrompt(prompt)
        let ids = try before + tokenizer.encodeContinuation(completion) + tokenizer.eos()
        return LineExample(example: example(ids) { $0 >= before.count }, form: .completion)
    case .chat(let messages):
        guard let chat else {
            let what = "the bundle has no chat format (\(ChatFormat.file)), so messages cannot be used"
            throw LcsbError(.chatUnsupported, "\(what); give them as prompt and completion")
        }
        return try chatExample(messages, tokenizer, chat)
    }
}

/// `counted`: whether predicting token t counts.
private func example(_ ids: [Int], _ counted: (Int) -> Bool) -> Example {
    Example(inputIds: ids, labels: ids.indices.map { $0 + 1 < ids.count && counted($0 + 1) ? ids[$0 + 1] : Int(ignoredLabel) })
}

/// The conversation through the assistant's last turn, rendered and tokenised once. A token counts when any of its characters is in a turn
/// that counts.
private func chatExample(_ messages: [Message], _ tokenizer: Tokenizer, _ chat: ChatFormat) throws -> LineExample {
    let rendered: RenderedChat
    do {
        rendered = try chat.conversation(messages)
    } catch let error as ChatRefusal {
        throw LineFault(error.reason)
    }
    let tokens = try tokenizer.encodeWithOffsets(rendered.text)
    let length = max(tokens.ends.max() ?? 0, rendered.counted.map(\.upperBound).max() ?? 0)
    var before = [Int](repeating: 0, count: length + 1)  // how many characters that count stand before each
    for place in rendered.counted.joined() { before[place + 1] = 1 }
    for place in 0..<length { before[place + 1] += before[place] }
    let counted = example(tokens.ids) { before[tokens.ends[$0]] > before[tokens.starts[$0]] }
    return LineExample(example: counted, form: .messages, uncountedTurns: rendered.uncountedTurns)
}
