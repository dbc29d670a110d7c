import Foundation

// Writing safetensors tensor by tensor. The header has the bytes that Python's json.dumps gives, so that both write the same file.

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
