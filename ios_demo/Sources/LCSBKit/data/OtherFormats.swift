// Files that are not JSON lines but could be: recognised by how they begin, and answered with the one command that turns them into it, as
// the desktop answers, word for word. Specification: docs/data.md.

private let shownBytes = 4096  // of a first line that is looked at
private let delimiters: [(mark: Unicode.Scalar, argument: String)] = [(",", ""), (";", ", delimiter=';'"), ("\t", #", delimiter='\t'"#)]
private let csvKeys = formKeys.filter { $0[0] != "messages" && $0[0] != "conversations" }  // a cell holds no array
private let lines = #", sep='\n')"#
private let array = "print(*map(json.dumps, json.load(open(sys.argv[1], 'rb')))\(lines)"

// A line that is a brace alone ends an object: within a string JSON has no line's end, and what is within an object is indented.
private let parts = #"open(sys.argv[1], encoding='utf-8-sig').read().split('\n}')[:-1]"#
private let indented = "print(*(json.dumps(json.loads(x + '}')) for x in \(parts))\(lines)"

/// What a file named `file` is whose first line that is not blank is `raw`, or begins so, and the command that makes it JSON lines; nil for
/// JSON lines, and for what is not known.
func otherFormat(_ raw: UnsafeBufferPointer<UInt8>, _ file: String) -> String? {
    let (source, target) = (shellQuoted(file), shellQuoted(target(file)))
    if let encoding = utf16(raw) { return "\(utf16Fault): iconv -f \(encoding) -t UTF-8 \(source) > \(target)" }
    let bytes = raw.prefix(shownBytes)
    let line = String(decoding: bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? bytes.dropFirst(3) : bytes, as: UTF8.self).strip()
    let scalars = line.unicodeScalars
    let what: String
    let program: String
    if scalars.first == "[", scalars.dropFirst().first(where: { !isPythonBlank($0) }).map({ $0 == "{" }) ?? true {
        (what, program) = ("a JSON array", "json, sys; \(array)")
    } else if line == "{" {
        (what, program) = ("JSON over several lines", "json, sys; \(indented)")
    } else if let argument = delimiter(line) {
        let table = "csv.DictReader(open(sys.argv[1], encoding='utf-8-sig', newline='')\(argument))"
        (what, program) = ("CSV", "csv, json, sys; print(*map(json.dumps, \(table))\(lines)")
    } else {
        return nil
    }
    return "\(what); expected one JSON object a line: python3 -c \"import \(program)\" \(source) > \(target)"
}

/// UTF-16, or UTF-16LE or UTF-16BE without a mark, where the first two bytes are of it: JSON and CSV begin with ASCII.
private func utf16(_ raw: UnsafeBufferPointer<UInt8>) -> String? {
    if raw.count < 2 { return nil }
    switch (raw[0], raw[1]) {
    case (0xFF, 0xFE), (0xFE, 0xFF): return "UTF-16"
    case (0, 0): return nil
    case (0, _): return "UTF-16BE"
    case (_, 0): return "UTF-16LE"
    default: return nil
    }
}

/// As an argument of the reader of a table: what parts the columns of one whose first line names those of a form.
private func delimiter(_ line: String) -> String? {
    for (mark, argument) in delimiters {
        let columns = line.unicodeScalars.split(separator: mark, omittingEmptySubsequences: false)
        let names = Set(columns.map { ByteText(unquoted(String($0).strip())) })
        if csvKeys.contains(where: { names.isSuperset(of: $0) }) { return argument }
    }
    return nil
}

private func unquoted(_ text: String) -> String {
    let scalars = text.unicodeScalars
    guard let first = scalars.firstIndex(where: { $0 != "\"" }) else { return "" }
    return String(scalars[first...scalars.lastIndex { $0 != "\"" }!])
}

/// Beside the file, and never the file itself.
private func target(_ file: String) -> String {
    let scalars = file.unicodeScalars
    let name = scalars.lastIndex(of: "/").map { scalars.index(after: $0) } ?? scalars.startIndex
    let dot = scalars[name...].lastIndex(of: ".").flatMap { $0 > name ? $0 : nil }
    return String(scalars[..<(dot ?? scalars.endIndex)]) + ".lines.jsonl"
}

private func shellQuoted(_ text: String) -> String {
    let plain = text.unicodeScalars.allSatisfy { scalar in
        switch scalar {
        case "A"..."Z", "a"..."z", "0"..."9", "_", "@", "%", "+", "=", ":", ",", ".", "/", "-": true
        default: false
        }
    }
    if plain && !text.isEmpty { return text }
    let parts = text.unicodeScalars.split(separator: "'", omittingEmptySubsequences: false).map { String($0) }
    return "'" + parts.joined(separator: #"'"'"'"#) + "'"
}
