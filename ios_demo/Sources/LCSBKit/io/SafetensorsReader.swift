import Foundation

private let mostHeaderBytes = 4 << 20  // 80 kB are usual: five hundred tensors
private let metadataKey = "__metadata__"
private let storedBytes = ["F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1]

/// An entry of the header. `start` and `end`: where its bytes are, from the end of the header.
struct StoredTensor: Sendable {
    let dtype: String
    let shape: [Int]
    let start: Int
    let end: Int

    var nbytes: Int { end - start }

    fileprivate init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        (dtype, shape) = (try fields.string("dtype"), try fields.ints("shape"))
        let offsets = try fields.ints("data_offsets")
        try fields.finish()
        if offsets.count != 2 { throw RecordError("\(place).data_offsets: expected two numbers, found \(offsets.count)") }
        (start, end) = (offsets[0], offsets[1])
    }

    fileprivate func liesWithin(_ size: Int) -> Bool {
        if shape.count > 8 || shape.contains(where: { $0 < 0 }) || start < 0 || start > end || end > size { return false }
        guard var bytes = storedBytes[dtype] else { return true }
        for count in shape {
            if count > 0 && bytes > size / count { return false }
            bytes *= count
        }
        return bytes == nbytes
    }
}

/// A safetensors file whose header was read: an 8-byte little-endian length, a JSON header of that length, the tensors. Every tensor lies within
/// the file and is as long as its shape and dtype say. Nothing else of the file is believed; what is read goes where the caller has room.
struct StoredTensors {
    let file: URL
    let names: [String]  // in the header's order
    let tensors: [String: StoredTensor]
    let metadata: [String: String]
    let dataStart: Int
    private let fault: Fault

    /// Reads and checks the header. Throws `fault` for what is no safetensors file, or a damaged one, or has a header of more than 4 MiB.
    init(_ file: URL, _ fault: Fault) throws {
        func refused(_ what: String) -> LcsbError { LcsbError(fault, "\(file.path): \(what)", [file.lastPathComponent]) }
        (self.file, self.fault) = (file, fault)
        do {
            if !isFile(file) { throw refused("no such file") }
            let (opened, size) = try openRegular(file)
            var length = -1
            if size >= 8 {
                var stated: UInt64 = 0
                try withUnsafeMutableBytes(of: &stated) { try opened.read(at: 0, into: $0) }
                length = Int(exactly: UInt64(littleEndian: stated)) ?? -1
            }
            if length < 2 || length > min(size - 8, mostHeaderBytes) {
                throw refused("not a safetensors file, or a truncated one: of \(size) bytes its header is said to have \(length)")
            }
            var header = [UInt8](repeating: 0, count: length)
            try header.withUnsafeMutableBytes { try opened.read(at: 8, into: $0) }
            _ = try Utf8.strict(header)
            let reader = try JsonReader(header)
            let fields = try Fields.entries(reader.tree(nodes: 1 << 20, unique: true), "its header") { value, _ in value }
            try reader.finish()
            var (names, tensors, metadata): ([String], [String: StoredTensor], [String: String]) = ([], [:], [:])
            for (name, value) in fields {
                if name == metadataKey {
                    for (key, text) in try Fields.entries(value, metadataKey, Fields.string) { metadata[key] = text }
                } else {
                    names.append(name)
                    tensors[name] = try StoredTensor(value, oneLine(name, 80))
                }
            }
            let faults = names.filter { !tensors[$0]!.liesWithin(size - 8 - length) }.map { quoted($0, 80) }
            if !faults.isEmpty {
                let more = faults.count > 3 ? " and \(faults.count - 3) more" : ""
                throw refused("damaged or truncated: not within the file as its header says: \(faults.prefix(3).joined(separator: ", "))\(more)")
            }
            (self.names, self.tensors, self.metadata, dataStart) = (names, tensors, metadata, 8 + length)
        } catch let error as IoError {
            throw refused("cannot be read: \(oneLine(error.reason))")
        } catch let error as JsonError {
            throw refused("not a safetensors file, or a damaged one: \(oneLine(error.reason))")
        } catch let error as RecordError {
            throw refused("not a safetensors file, or a damaged one: \(oneLine(error.reason))")
        }
    }

    /// An F32 tensor into all of `into`.
    func readFloats(_ name: String, into: Floats) throws {
        let tensor = tensors[name]!
        precondition(tensor.dtype == "F32" && into.count * 4 == tensor.nbytes, "\(name): other than \(into.count) F32")
        try read(tensor, UnsafeMutableRawBufferPointer(start: into.pointer, count: tensor.nbytes))
    }

    /// A tensor of 8-byte elements, I64 or F64.
    func read<Element: BitwiseCopyable>(_ name: String, as _: Element.Type = Element.self) throws -> [Element] {
        let tensor = tensors[name]!
        precondition(storedBytes[tensor.dtype] == MemoryLayout<Element>.size)
        return try [Element](unsafeUninitializedCapacity: tensor.nbytes / MemoryLayout<Element>.size) { into, count in
            try read(tensor, UnsafeMutableRawBufferPointer(start: into.baseAddress, count: tensor.nbytes))
            count = tensor.nbytes / MemoryLayout<Element>.size
        }
    }

    private func read(_ tensor: StoredTensor, _ into: UnsafeMutableRawBufferPointer) throws {
        do {
            if into.count > 0 { try OpenFile(file, O_RDONLY).read(at: dataStart + tensor.start, into: into) }
        } catch let error as IoError {
            throw LcsbError(fault, "\(file.path): cannot be read: \(oneLine(error.reason))", [file.lastPathComponent])
        }
    }
}
