import Foundation

// Writing safetensors tensor by tensor. The header has the bytes that Python's json.dumps gives, so that both write the same file.
// A file may state a SHA-256 of the whole of it, header included, in its metadata; the digest's own 64 characters count as zeros.

let digestKey = "sha256"
let unknownDigest = [UInt8](repeating: UInt8(ascii: "0"), count: 64)
private let digestField = Array("\"\(digestKey)\":\"".utf8)

/// A tensor to write, by safetensors' dtypes F32, I64 and F64.
struct WrittenTensor {
    private enum Values {
        case floats(Floats)
        case integers([Int64])
        case doubles([Double])
    }

    let dtype: String
    let shape: [Int]
    let nbytes: Int
    private let values: Values

    private init(_ dtype: String, _ shape: [Int], _ nbytes: Int, _ values: Values) {
        (self.dtype, self.shape, self.nbytes, self.values) = (dtype, shape, nbytes, values)
        precondition(nbytes == shape.reduce(1, *) * (dtype == "F32" ? 4 : 8), "\(shape): other than \(nbytes) bytes of \(dtype)")
    }

    init(_ shape: [Int], _ values: Floats) { self.init("F32", shape, values.count * 4, .floats(values)) }

    init(_ shape: [Int], _ values: [Int64]) { self.init("I64", shape, values.count * 8, .integers(values)) }

    init(_ shape: [Int], _ values: [Double]) { self.init("F64", shape, values.count * 8, .doubles(values)) }

    func write(_ sink: (UnsafeRawBufferPointer) throws -> Void) throws {
        switch values {
        case .floats(let floats): try withExtendedLifetime(floats) { try sink(floats.bytes.raw) }
        case .integers(let integers): try integers.withUnsafeBytes(sink)
        case .doubles(let doubles): try doubles.withUnsafeBytes(sink)
        }
    }
}

/// Writes `tensors` in their order; the first that `sink` gets is the whole header. It takes all that it gets before it returns.
func writeSafetensors(
    _ tensors: [(name: String, tensor: WrittenTensor)],
    _ metadata: [(key: String, value: String)],
    to sink: (UnsafeRawBufferPointer) throws -> Void
) throws {
    var fields = ["\"__metadata__\":{" + metadata.map { "\(asciiJson($0.key)):\(asciiJson($0.value))" }.joined(separator: ",") + "}"]
    var offset = 0
    for (name, tensor) in tensors {
        let shape = tensor.shape.map(String.init).joined(separator: ",")
        let end = offset + tensor.nbytes
        fields.append("\(asciiJson(name)):{\"dtype\":\"\(tensor.dtype)\",\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]}")
        offset = end
    }
    var header = Array("{\(fields.joined(separator: ","))}".utf8)
    header.append(contentsOf: [UInt8](repeating: 0x20, count: (8 - header.count % 8) % 8))
    var start = withUnsafeBytes(of: UInt64(header.count).littleEndian, Array.init)
    start.append(contentsOf: header)
    try start.withUnsafeBytes(sink)
    for (_, tensor) in tensors { try tensor.write(sink) }
}

/// `writeSafetensors` into `file`; then the digest goes where `metadata` has the text of `unknownDigest`.
func writeDigested(
    _ tensors: [(name: String, tensor: WrittenTensor)], _ metadata: [(key: String, value: String)], to file: OpenFile
) throws {
    var digest = Sha256()
    var digestAt: Int?
    try writeSafetensors(tensors, metadata) { bytes in
        // The first piece is the header.
        digestAt = digestAt ?? bytes.firstRange(of: digestField + unknownDigest)!.lowerBound + digestField.count
        digest.update(bytes)
        try file.write(bytes)
    }
    try Array(digest.hex().utf8).withUnsafeBytes { try write($0, file, at: digestAt!) }
}

/// Throws IoError.
private func write(_ bytes: UnsafeRawBufferPointer, _ file: OpenFile, at offset: Int) throws {
    var done = 0
    while done < bytes.count {
        let count = pwrite(file.descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
        if count < 0 && errno == EINTR { continue }
        if count < 0 { throw IoError(errno) }
        done += count
    }
}

/// Of a file of `size` bytes which begins with `header`; `stated` counts as zeros where it stands first. Throws IoError.
func fileDigest(_ file: OpenFile, _ size: Int, _ header: [UInt8], _ stated: String) throws -> String {
    var header = header
    let stated = Array(stated.utf8)
    if stated.count == 64, let place = header.firstRange(of: stated) { header.replaceSubrange(place, with: unknownDigest) }
    var digest = Sha256()
    header.withUnsafeBytes { digest.update($0) }
    let block = try Bytes(count: 1 << 18)
    var done = header.count
    while done < size {
        let piece = UnsafeMutableRawBufferPointer(start: block.pointer, count: min(block.count, size - done))
        try file.read(at: done, into: piece)
        digest.update(UnsafeRawBufferPointer(piece))
        done += piece.count
    }
    return digest.hex()
}
