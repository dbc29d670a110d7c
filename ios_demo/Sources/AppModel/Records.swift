import Foundation
import LCSBKit

private let mostRecordBytes = 64 << 20

/// A record of the app's own as a file: whole or not at all. Throws STORAGE_FULL, STORAGE_FAILED.
func write(_ record: some Encodable, to file: URL) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    encoder.dateEncodingStrategy = .secondsSince1970
    encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    try store(encoder.encode(record), to: file)
}

func store(_ text: String, to file: URL) throws { try store(Data(text.utf8), to: file) }

private func store(_ bytes: Data, to file: URL) throws {
    try replaceAtomically(file) { opened in try bytes.withUnsafeBytes { try opened.write($0) } }
}

/// Nil where there is none, and where it cannot be read: a record is as good as none then.
func read<Record: Decodable>(_: Record.Type, from file: URL) -> Record? {
    guard let bytes = try? readBounded(file, mostRecordBytes) else { return nil }
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .secondsSince1970
    decoder.nonConformingFloatDecodingStrategy = .convertFromString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return try? decoder.decode(Record.self, from: Data(bytes))
}

/// Whatever is there goes; nothing is said of what is not.
func remove(_ file: URL) { try? FileManager.default.removeItem(at: file) }

/// Of files below `directory`, with their paths within it, links left out: at most `most`, and `depth` directories deep.
func filesBelow(_ directory: URL, most: Int = 1000, depth: Int = 4) -> [(path: String, size: Int)] {
    var found: [(path: String, size: Int)] = []
    func look(_ path: String, _ level: Int) {
        for name in listed(directory.appendingPathComponent(path)) where found.count < most {
            let inner = path.isEmpty ? name : "\(path)/\(name)"
            let file = directory.appendingPathComponent(inner)
            if isLink(file) { continue }
            if isDirectory(file) {
                if level < depth { look(inner, level + 1) }
            } else if isFile(file) {
                found.append((inner, fileSize(file)))
            }
        }
    }
    look("", 1)
    return found
}

private func isLink(_ file: URL) -> Bool {
    (try? FileManager.default.attributesOfItem(atPath: file.path)[.type] as? FileAttributeType) == .typeSymbolicLink
}

/// `wanted` as the name of a file, and another than all of `taken`: "tiny", "tiny-2".
func freeName(_ wanted: String, default standard: String, taken: (String) -> Bool) -> String {
    let plain = String(String.UnicodeScalarView(wanted.unicodeScalars.prefix(60).map { scalar in
        scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || "-_ .".unicodeScalars.contains(scalar) ? scalar : "-"
    }))
    let trimmed = plain.trimmingCharacters(in: CharacterSet(charactersIn: " -."))
    let name = trimmed.isEmpty ? standard : trimmed
    if !taken(name) { return name }
    var number = 2
    while taken("\(name)-\(number)") { number += 1 }
    return "\(name)-\(number)"
}
