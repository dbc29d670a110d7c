import Foundation
import XCTest
@testable import LCSBKit

/// A manifest whose layers bind what they should not.
final class LayerRelationsTest: XCTestCase {
    private func refused(
        _ expected: String, file: StaticString = #filePath, line: UInt = #line, _ change: (inout Manifest) -> Void
    ) throws {
        try inScratch { scratch in
            let bundle = try CrossingBundle.write(scratch, change)
            let message = refusal(.bundleUnreadable, file: file, line: line) { _ = try TrainingBundle.open(bundle) }
            let said = message.contains(expected) && message.contains("malformed manifest: ")
            XCTAssert(said, "\(expected): \(message)", file: file, line: line)
        }
    }

    func testLayersThatGiveAndTakeAgree() throws {
        try inScratch { scratch in
            let manifest = try TrainingBundle.open(CrossingBundle.write(scratch)).manifest
            let layout = manifest.adapter
            XCTAssertEqual(34, layout.size)
            XCTAssertEqual([4, 5, 4, 6, 6, 4, 5], manifest.layers.indices.map(layout.vectorSize))
            XCTAssertEqual("base_model.model.model.language_model.layers.3.p.lora_B.weight", layout.tensorName(3, "p.lora_B"))
            let adapter = try CrossingBundle.adapter()
            XCTAssertEqual(adapter.part(13, 6).array, layout.vector(adapter, 3).array)
        }
    }

    func testWhatIsBound() throws {
        try refused("layers.1: takes: 'value': no earlier layer gives 'c'") { $0.layers[1].takes = ["value": "c"] }
        try refused("layers.1: takes: 'value': no earlier layer gives 'b'") { $0.layers[1].takes = ["value": "b"] }
        try refused("layers.2: gives: 'a' is given twice") { $0.layers[2].gives = ["value": "a"] }
        try refused("layers.2: gives: expected of ['value'], found ['other']") { $0.layers[2].gives = ["other": "b"] }
        try refused("layers.3: takes: expected ['left', 'right'], found ['left']") { $0.layers[3].takes = ["left": "a"] }
        try refused("layers.1: reads: expected ['scale'], found []") { $0.layers[1].reads = [:] }
        try refused("layers.6: take_forward: 'scale' is 'other': expected float32 [4, 1], found none") {
            $0.layers[6].reads = ["scale": "other"]
        }
        try refused("kinds: no layer is of 'unused'") { manifest in
            var kind = manifest.kinds[0]
            kind.name = "unused"
            manifest.kinds.append(kind)
        }
        try refused("kinds.take: names: 'scale' stands twice") { $0.kinds[1].takes = ["value", "scale"] }
        try refused("kinds.give: names: 'seen' stands twice") { $0.kinds[0].gives = ["value", "seen"] }
    }

    /// Each layer could name all of them: what is said must not grow by that.
    func testManyNames() throws {
        let many = (0..<20_000).map { "n\($0)" }
        let first = "'n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8', 'n9', ..."
        try refused("reads: expected [\(first)], found []") { $0.kinds[0].reads = many }
        try refused("gives: expected of ['value', 'n0'") { manifest in
            manifest.kinds[0].gives += many
            manifest.layers[0].gives = Entries(many) { $0 } + ["none": "none"]
        }
    }

    func testWhatCrossesIsOfOneShape() throws {
        try refused("layers.1: take_forward: 'value' is 'a': expected float32 [4, 3], found float32 [4, 2]") {
            $0.graphs["take_forward"]!.inputs["value"]!.shape = [4, 3]
        }
        try refused("layers.6: take_decode: 'value' is 'b': expected float32 [2, 2], found float32 [1, 2]") {
            $0.graphs["take_decode"]!.inputs["value"]!.shape = [2, 2]
        }
        try refused("layers.4: pair_backward_kept: 'd_right' is 'b': expected none, found float32 [4, 2]") {
            $0.graphs["pair_backward_kept"]!.outputs["d_right"] = nil
        }
        try refused("graphs.give_backward: inputs: 'd_value': expected float32 [4, 2], found none") {
            $0.graphs["give_backward"]!.inputs["d_value"] = nil
        }
        try refused("graphs.give_forward_keep: outputs: 'value': expected float32 [4, 2], found none") {
            $0.graphs["give_forward_keep"]!.outputs["value"] = nil
        }
        for program in ["give_forward", "give_prefill", "give_decode"] {
            try refused("graphs.\(program): outputs: 'value': expected a float32 that it gives, found none") {
                $0.graphs[program]!.outputs["value"] = nil
            }
        }
    }

    func testProgramsOfAKind() throws {
        try refused("graphs: give_decode, pair_prefill missing") {
            $0.graphs["give_decode"] = nil
            $0.graphs["pair_prefill"] = nil
        }
        try refused("graphs.take_backward: inputs: 'g': expected float32 [4, 2], found none") {
            $0.graphs["take_backward"]!.inputs["g"] = nil
        }
        try refused("graphs.give_prefill: outputs: 'total': expected float32 [1, 2], found float32 [2, 2]") {
            $0.graphs["give_prefill"]!.outputs["total"]!.shape = [2, 2]
        }
        try refused("graphs.give_decode: outputs: 'seen': expected float32 [1, 2], found float32 [4, 2]") {
            $0.graphs["give_decode"]!.outputs["seen"]!.shape = [4, 2]
        }
        try refused("graphs.give_decode: inputs: 'past_other': expected none, found float32 [1, 2]") { manifest in
            var tensor = manifest.graphs["give_decode"]!.inputs[0]
            tensor.name = "past_other"
            manifest.graphs["give_decode"]!.inputs.append(tensor)
        }
        try refused("graphs.take_forward: outputs: 'kept.0': expected none, found float32 [4, 2]") {
            $0.graphs["take_forward"]!.outputs.append($0.graphs["take_forward_keep"]!.outputs[1])
        }
        try refused("graphs.take_forward_keep: what take_backward_kept reads: 'kept.0': expected float32 [4, 2], found none") {
            $0.graphs["take_forward_keep"]!.outputs["kept.0"] = nil
        }
        try refused("graphs.take_forward: 'layers.give.bias': expected one of the kind take") {
            $0.graphs["take_forward"]!.inputs.append($0.graphs["give_forward"]!.inputs.last!)
        }
    }

    func testWeightsAreStackedByKind() throws {
        try refused("weights: 'layers.give.bias': expected 3 layers, found 7") { $0.weights["layers.give.bias"]!.shape = [7, 1] }
        try refused("weights: 'layers.pair.p.weight.scale': expected float16 [2, 4, 1], found float16 [7, 4, 1]") {
            $0.weights["layers.pair.p.weight.scale"]!.shape = [7, 4, 1]
        }
        try refused("weights: 'layers.bias': expected a tensor of one of the kinds give, take, pair") {
            $0.weights["layers.give.bias"]!.name = "layers.bias"
        }
    }
}

private protocol Described {
    var name: String { get }
}

extension GraphTensor: Described {}
extension WeightTensor: Described {}

extension [GraphTensor] {
    fileprivate subscript(name: String) -> GraphTensor? {
        get { first { $0.name == name } }
        set { change(&self, name, newValue) }
    }
}

extension [WeightTensor] {
    fileprivate subscript(name: String) -> WeightTensor? {
        get { first { $0.name == name } }
        set { change(&self, name, newValue) }
    }
}

private func change<Element: Described>(_ list: inout [Element], _ name: String, _ value: Element?) {
    let place = list.firstIndex { $0.name == name }!
    if let value { list[place] = value } else { list.remove(at: place) }
}
