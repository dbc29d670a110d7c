import Foundation

// Which bytes outside itself an ONNX file names as its tensors' data. Every program is walked through before a session is made of it: a
// protobuf reader of the fields that lead to a tensor, which refuses what no exporter writes (a single field that stands twice, which
// parsers merge; groups; a message past its end). Field numbers are those of onnx.proto3, the wire format protobuf's.

let programBytes = 16 << 20  // that are read; 130 kB are usual: a program holds no weights
private let mostFields = 200_000  // in a file; 6,000 are usual
private let mostDepth = 100  // of messages within messages, protobuf's own limit
private let varintWire = 0
private let bytesWire = 2
private let fixedWires: [Int: UInt64] = [1: 8, 5: 4]  // wire types with their bytes
private let keys = ["location", "offset", "length", "checksum"]

/// The messages that lead to a tensor, and what is read of one.
private enum OnnxMessage: String {
    case model, training, function, graph, node, attribute, sparse, tensor, entry
    case name, number, key, value

    /// By field number, the message that each such field holds. `once`: it is single.
    var fields: [UInt64: (inner: OnnxMessage, once: Bool)] {
        switch self {
        case .model: [7: (.graph, true), 20: (.training, false), 25: (.function, false)]
        case .training: [1: (.graph, true), 2: (.graph, true)]
        case .function: [7: (.node, false), 11: (.attribute, false)]
        case .graph: [1: (.node, false), 5: (.tensor, false), 15: (.sparse, false)]
        case .node: [5: (.attribute, false)]
        case .attribute:
            [5: (.tensor, true), 6: (.graph, true), 10: (.tensor, false), 11: (.graph, false), 22: (.sparse, true), 23: (.sparse, false)]
        case .sparse: [1: (.tensor, true), 2: (.tensor, true)]
        case .tensor: [8: (.name, true), 13: (.entry, false), 14: (.number, true)]
        case .entry: [1: (.key, true), 2: (.value, true)]
        case .name, .number, .key, .value: [:]
        }
    }
}

/// A tensor that is marked as external, or says where its data is: `entries`, each key once.
struct ExternalTensor: Sendable {
    let name: String
    let entries: Entries<String>
}

/// Throws BUNDLE_UNREADABLE for a file that cannot be read, is too large, or is no ONNX file as exporters write them.
func externalTensors(_ file: URL) throws -> [ExternalTensor] {
    do {
        return try readBounded(file, programBytes).withUnsafeBufferPointer { data in
            var walk = OnnxWalk(data)
            try walk.message(.model, 0, data.count, 0)
            return walk.found
        }
    } catch let error as MalformedProgram {
        throw unreadable("\(file.path): not an ONNX file as exporters write them: \(error.reason); export the bundle again")
    } catch let error as IoError {
        throw unreadable("\(file.path): cannot be read: \(oneLine(error.reason))")
    }
}

/// Throws BUNDLE_UNREADABLE unless all external data lies within the first `dataSize` bytes of `dataFile`, beside the program, and belongs
/// to tensors of these `names`.
func checkExternalData(_ file: URL, _ dataFile: String, _ dataSize: Int, _ names: [String]) throws {
    let faults = try externalTensors(file).compactMap { tensor -> String? in
        let name = quoted(tensor.name)
        let location = tensor.entries["location"]
        if location != dataFile || !tensor.entries.keys.allSatisfy(keys.contains) {
            let expected = "expected \(quoted(dataFile)) and no keys but \(keys.joined(separator: ", "))"
            return "\(name) has its data in \(quoted(location ?? "")), \(expected)"
        }
        if !names.contains(tensor.name) {
            let expected = names.isEmpty ? "no tensor" : names.joined(separator: ", ")
            return "\(name) has its data outside the program, expected \(expected) to have"
        }
        let (offset, length) = (tensor.entries["offset"] ?? "0", tensor.entries["length"] ?? "0")
        guard let start = number(offset), let count = number(length), start + count <= dataSize else {
            return "\(name): expected its data within \(dataSize) bytes, found \(quoted(length)) bytes from \(quoted(offset))"
        }
        return nil
    }
    if !faults.isEmpty { throw unreadable("\(file.path): \(some(faults)); export the bundle again") }
}

/// Of 1 to 18 digits.
private func number(_ text: String) -> Int? {
    let isNumber = (1...18).contains(text.utf8.count) && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    return isNumber ? Int(text) : nil
}

private struct MalformedProgram: Error {
    let reason: String

    init(_ reason: String) { self.reason = reason }
}

/// A field: where what it holds starts and ends; of a number its `value`.
private struct Field {
    let number: UInt64
    let wire: Int
    var value: UInt64 = 0
    var first = 0
    var last = 0
}

/// One pass through a file. Its methods take where a message starts and ends, and throw MalformedProgram.
private struct OnnxWalk {
    private let data: UnsafeBufferPointer<UInt8>
    private(set) var found: [ExternalTensor] = []
    private var fields = 0
    private var at = 0

    init(_ data: UnsafeBufferPointer<UInt8>) { self.data = data }

    mutating func message(_ kind: OnnxMessage, _ start: Int, _ end: Int, _ depth: Int) throws {
        if depth > mostDepth { throw MalformedProgram("more than \(mostDepth) messages within each other") }
        try known(kind, start, end) { walk, inner, field in
            if inner == .tensor { return try walk.tensor(field.first, field.last) }
            try walk.message(inner, field.first, field.last, depth + 1)
        }
    }

    private mutating func tensor(_ start: Int, _ end: Int) throws {
        var (name, external, count) = ("", false, 0)
        var entries: Entries<String> = [:]
        try known(.tensor, start, end) { walk, inner, field in
            switch inner {
            case .name: name = try walk.text(field)
            case .number: external = field.value != 0
            default:
                let (key, value) = try walk.entry(field)
                entries[key] = value
                count += 1
            }
        }
        if entries.count < count { throw MalformedProgram("the tensor \(quoted(name)) has a key twice") }
        if external || count > 0 { found.append(ExternalTensor(name: name, entries: entries)) }
    }

    private mutating func entry(_ place: Field) throws -> (String, String) {
        var (key, value) = ("", "")
        try known(.entry, place.first, place.last) { walk, inner, field in
            if inner == .key { key = try walk.text(field) } else { value = try walk.text(field) }
        }
        return (key, value)
    }

    /// The fields of `OnnxMessage.fields`, one after the other.
    private mutating func known(
        _ kind: OnnxMessage, _ start: Int, _ end: Int, _ take: (inout OnnxWalk, OnnxMessage, Field) throws -> Void
    ) throws {
        let wanted = kind.fields
        var seen: Set<UInt64> = []
        var next = start
        while next < end {
            let field = try field(next, end)
            next = at
            guard let holds = wanted[field.number] else { continue }
            if holds.once && !seen.insert(field.number).inserted {
                throw MalformedProgram("field \(field.number) of \(kind.rawValue) stands twice")
            }
            if field.wire != (holds.inner == .number ? varintWire : bytesWire) {
                throw MalformedProgram("field \(field.number) of \(kind.rawValue) is of wire type \(field.wire)")
            }
            try take(&self, holds.inner, field)
        }
    }

    /// The field that starts there; leaves `at` where the next one does.
    private mutating func field(_ start: Int, _ end: Int) throws -> Field {
        fields += 1
        if fields > mostFields { throw MalformedProgram("more than \(mostFields) fields") }
        at = start
        let tag = try varint(end)
        let (number, wire) = (tag >> 3, Int(tag & 7))
        if number < 1 || number >= 1 << 29 { throw MalformedProgram("field number \(number)") }
        if wire == varintWire { return Field(number: number, wire: wire, value: try varint(end)) }
        guard let size = wire == bytesWire ? try varint(end) : fixedWires[wire] else { throw MalformedProgram("wire type \(wire)") }
        if size > UInt64(end - at) { throw MalformedProgram("a field of \(size) bytes where \(end - at) are left") }
        let first = at
        at += Int(size)
        return Field(number: number, wire: wire, first: first, last: at)
    }

    /// The number at `at`, which it moves past.
    private mutating func varint(_ end: Int) throws -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: 0, to: 64, by: 7) {
            if at >= end { break }
            let byte = data[at]
            at += 1
            if shift == 63 && byte & 0x7E != 0 { break }
            value |= UInt64(byte & 0x7F) << UInt64(shift)
            if byte < 0x80 { return value }
        }
        throw MalformedProgram("a number that does not end")
    }

    private func text(_ field: Field) throws -> String {
        do {
            return try Utf8.strict(Array(data[field.first..<field.last]))
        } catch let error as IoError {
            throw MalformedProgram(error.reason)
        }
    }
}
