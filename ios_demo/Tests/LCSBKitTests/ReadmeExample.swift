// What ios_demo/README.md shows of LCSBKit in an app of one's own: tests/ios/test_readme.py holds it to this file, and ReadmeTest runs it.
// example
import Foundation
import LCSBKit

func fineTune(_ model: URL, on messages: URL, in directory: URL, peft: URL) async throws {
    let bundle = try TrainingBundle.open(model)  // verifies sizes and SHA-256
    let run = TrainingRun(bundle, data: messages, directory: directory, RunOptions(steps: 100))
    let control = RunControl()  // pause() and stop(), from any thread
    let (events, result) = run.launch(control)  // begins, or goes on from the newest checkpoint in the directory
    for await event in events {
        if case .stepped(let outcome, let memory) = event { print("step \(outcome.step): loss \(outcome.loss), \(memory) bytes") }
    }
    print(try await result.value.evalLossAfter ?? .nan)

    let layout = bundle.manifest.adapter
    let adapter = try Floats(count: layout.size)
    try readAdapter(run.adapterFile, layout, adapter)
    try writePeft(bundle.manifest, adapter, peft)  // adapter_config.json, adapter_model.safetensors
}
// /
