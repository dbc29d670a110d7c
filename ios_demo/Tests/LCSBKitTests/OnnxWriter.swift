import Foundation
@testable import LCSBKit

// ONNX files of a few operators, written field by field of onnx.proto3: programs whose results can be worked out by hand.

func field(_ number: Int, _ content: [UInt8]) -> [UInt8] { varint(number << 3 | 2) + varint(content.count) + content }

func field(_ number: Int, _ text: String) -> [UInt8] { field(number, Array(text.utf8)) }

func field(_ number: Int, _ value: Int) -> [UInt8] { varint(number << 3) + varint(value) }

func varint(_ value: Int) -> [UInt8] {
    var (bytes, left): ([UInt8], UInt64) = ([], UInt64(bitPattern: Int64(value)))
    repeat {
        bytes.append(UInt8(left & 0x7F) | (left >> 7 != 0 ? 0x80 : 0))
        left >>= 7
    } while left != 0
    return bytes
}

/// A program in the making: operators are called in order, and each returns the name of its result.
struct OnnxWriter {
    let inputs: Tensors
    let outputs: Tensors
    private var body: [UInt8] = []
    private var count = 0

    init(_ inputs: Tensors, _ outputs: Tensors) { (self.inputs, self.outputs) = (inputs, outputs) }

    private mutating func name(_ letter: String) -> String {
        count += 1
        return "\(letter)\(count - 1)"
    }

    mutating func floats(_ shape: [Int], _ values: [Float]) -> String { constant(1, shape, values.withUnsafeBytes(Array.init)) }

    mutating func integers(_ values: Int64...) -> String { constant(7, [values.count], values.withUnsafeBytes(Array.init)) }

    private mutating func constant(_ type: Int, _ shape: [Int], _ raw: [UInt8]) -> String {
        let name = name("c")
        body += field(5, shape.flatMap { field(1, $0) } + field(2, type) + field(8, name) + field(9, raw))
        return name
    }

    /// `attributes`: whole numbers.
    @discardableResult
    mutating func call(_ op: String, _ operands: String..., result: String? = nil, attributes: [(String, Int)] = []) -> String {
        let result = result ?? name("x")
        let described = attributes.flatMap { field(5, field(1, $0.0) + field(3, $0.1) + field(20, 2)) }
        body += field(1, operands.flatMap { field(1, $0) } + field(2, result) + field(4, op) + described)
        return result
    }

    /// The sum of all elements, a scalar.
    mutating func sum(_ x: String) -> String { call("ReduceSum", x, attributes: [("keepdims", 0)]) }

    @discardableResult
    mutating func product(_ a: String, _ b: String, _ result: String? = nil) -> String { call("Mul", a, b, result: result) }

    @discardableResult
    mutating func total(_ a: String, _ b: String, _ result: String? = nil) -> String { call("Add", a, b, result: result) }

    var bytes: [UInt8] {
        func described(_ number: Int, _ tensors: Tensors) -> [UInt8] { tensors.flatMap { field(number, value($0.key, $0.value)) } }
        let graph = body + field(2, "g") + described(11, inputs) + described(12, outputs)
        return field(1, 10) + field(7, graph) + field(8, field(2, 21))
    }

    private func value(_ name: String, _ type: TensorType) -> [UInt8] {
        let shape = type.shape.enumerated().flatMap { at, size in field(1, size == anySize ? field(2, "n\(at)") : field(1, size)) }
        return field(1, name) + field(2, field(1, field(1, ["int64": 7, "float16": 10][type.dtype] ?? 1) + field(2, shape)))
    }
}
