import Foundation
import XCTest
@testable import LCSBKit

final class PeftAdapterTest: XCTestCase {
    func testAnAdapterIsWrittenWithPythonsBytes() throws {
        try inScratch { scratch in
            for name in ["llama", "gemma3", "tiny", "lfm2", "qwen3_5"] {
                let bundle = try openBundle(name)
                let own = bundle.manifest.adapter
                let layout = AdapterLayout(own.lora, own.matrices, own.kinds, prefix: own.prefix)  // of no bundle, as the initial one is written
                try writeAdapter(scratch.file(name), layout, initialAdapter(bundle))
                XCTAssertEqual(try bundle.file(adapterFile).content, try scratch.file(name).content, name)
            }
        }
    }

    private func trained(_ base: BaseModel) throws -> AdapterLayout {
        let last = try Json(content: Repository.golden("run_vectors.json").content)["peft_configs"]!.array!.last!
        let layout = try AdapterLayout(last["layout"]!, "layout")
        return AdapterLayout(layout.lora, layout.matrices, layout.kinds, prefix: layout.prefix, base: base)
    }

    func testAnAdapterSaysWhatItWasTrainedOn() throws {
        let golden = Repository.golden("adapter.safetensors")
        let layout = try trained(BaseModel(name: "Größe \"x\"", digest: String(repeating: "ab", count: 32), toolkit: "0.1.0"))
        let adapter = try Floats(count: layout.size)
        try readAdapter(golden, layout, adapter)
        for at in 0..<adapter.count { XCTAssertEqual(adapter[at], Float(at * 7919 % 256 - 128) / 128) }
        try inScratch { scratch in
            try writeAdapter(scratch.file("trained"), layout, adapter)
            XCTAssertEqual(try golden.content, try scratch.file("trained").content)
            for place in stride(from: 0, to: try golden.content.count, by: 7) {
                var content = try golden.content
                content[place] ^= 1
                try scratch.file("changed").write(content)
                _ = refusal(.adapter) { try readAdapter(scratch.file("changed"), layout, adapter) }
            }
            let other = try trained(BaseModel(name: "another", digest: String(repeating: "cd", count: 32), toolkit: nil))
            let message = refusal(.adapter) { try readAdapter(golden, other, adapter) }
            XCTAssert(message.contains("found Größe"), message)
            try readAdapter(golden, trained(BaseModel(name: "of before", digest: nil, toolkit: nil)), adapter)
        }
    }

    /// The manifest of a model with this adapter.
    private func manifest(_ of: Manifest, _ layout: AdapterLayout) -> Manifest {
        var manifest = of
        manifest.kinds = layout.matrices.map { name, matrices in
            var kind = of.kinds[0]
            (kind.name, kind.matrices) = (name, matrices)
            return kind
        }
        manifest.layers = layout.kinds.map { kind in
            var layer = of.layers[0]
            layer.kind = kind
            return layer
        }
        manifest.lora = layout.lora
        manifest.model.tensorPrefix = layout.prefix
        return manifest
    }

    func testPeftsConfigurationIsPythons() throws {
        let cases = try Json(content: Repository.golden("run_vectors.json").content)["peft_configs"]!.array!
        XCTAssertGreaterThan(cases.count, 1)
        for golden in cases {
            let layout = try AdapterLayout(golden["layout"]!, "layout")
            let base = golden["base"]!.string!
            var manifest = try manifest(openBundle("llama").manifest, layout)
            try inScratch { scratch in
                let directory = scratch.file("peft")
                for source in ["\(base): llama, 3 layers", base] {
                    manifest.source = source
                    try writePeft(manifest, Floats(count: layout.size), directory)
                    XCTAssertEqual(golden["text"]!.string!, String(decoding: try directory.file(peftConfigFile).content, as: UTF8.self))
                    XCTAssertEqual([peftConfigFile, peftModelFile], listed(directory))
                }
            }
        }
    }

    func testLayersOfSeveralKindsHaveTheNamesOfTheCheckpointsOwnTensors() throws {
        try inScratch { scratch in
            let manifest = try openBundle("lfm2").manifest
            let layout = manifest.adapter
            XCTAssertEqual(layout.size, layout.shapes.values.reduce(0) { $0 + $1[0] * $1[1] })
            XCTAssert(layout.shapes.contains("base_model.model.model.layers.0.conv.in_proj.lora_A.weight"), "\(layout.shapes.keys)")
            XCTAssert(layout.shapes.contains("base_model.model.model.layers.1.self_attn.out_proj.lora_B.weight"), "\(layout.shapes.keys)")
            try writePeft(manifest, Floats(count: layout.size), scratch.file("peft"))
            let written = String(decoding: try scratch.file("peft").file(peftConfigFile).content, as: UTF8.self)
            let targets = Set(layout.modules.map { $0.components(separatedBy: ".").last! }).sorted()
            XCTAssert(written.contains(targets.map { "\"\($0)\"" }.joined(separator: ",\n    ")), written)
        }
    }

    func testADirectoryThatIsNotOneOfPeftsIsNotReplaced() throws {
        try inScratch { scratch in
            let directory = scratch.file("mine")
            try makeDirectories(directory)
            try directory.file("letter.txt").write("dear")
            let manifest = try openBundle("llama").manifest
            refusal(.option) { try writePeft(manifest, Floats(count: manifest.adapter.size), directory) }
            XCTAssertEqual(Array("dear".utf8), try directory.file("letter.txt").content)
        }
    }
}
