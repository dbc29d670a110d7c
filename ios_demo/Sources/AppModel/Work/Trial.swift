import Foundation
import LCSBKit

/// What the Try it screen does: writes, with an adapter or without.
@MainActor final class Trial {
    private static let mostTokens = 256

    private unowned let core: Core
    private var number = 0
    private(set) lazy var worker = Worker { [core] error in core.tell(error) }

    init(_ core: Core) { self.core = core }

    /// Whose words there are: what a run learned stands on the shelf once it has ended.
    var voices: [Voice] {
        let run = core.state.run
        let own: [Voice] = run.step > 0 && !run.active && run.resumable ? [.run] : []
        return own + core.state.adapters.map { .adapter($0.id) }
    }

    func choose(_ voice: Voice) { core.state.voice = voice }

    /// What is there, where what was chosen is gone.
    func chooseAnother() {
        let voices = voices
        if let chosen = core.state.voice, voices.contains(chosen) { return }
        core.state.voice = voices.first
    }

    private func adapter(_ voice: Voice) -> Writing.Adapter {
        switch voice {
        case .base: .none
        case .run: core.state.chosen.map { .run(core.runs.state($0)) } ?? .none
        case .adapter(let id): .file(core.adapters.file(id))
        }
    }

    /// A message of the person's and, as it is written, the answer by `voice`; without `chat` what follows the message.
    func send(_ text: String, _ voice: Voice, chat: Bool, system: String, temperature: Double) {
        guard let bundle = core.state.bundle, !core.training.running else { return }
        var writing = Writing(adapter: adapter(voice), prompt: text, chat: chat)
        writing.earlier = chat ? earlier() : []
        writing.system = chat && !system.isEmpty ? system : nil
        writing.sampling = SamplingConfig(temperature: temperature, seed: Int.random(in: 0..<1 << 31), maxTokens: Self.mostTokens)
        number += 2
        let answer = number
        core.state.messages.append(ChatMessage(id: answer - 1, voice: nil, text: text))
        core.state.messages.append(ChatMessage(id: answer, voice: voice, text: "", complete: false))
        let (engine, directory) = (core.engine, core.library.directory(bundle))
        worker.start { [self, writing] stop in
            core.state.problem = nil
            let newest = Newest<String> { text in self.change(answer) { $0.text = text } }
            defer {
                newest.end()
                change(answer) { $0.complete = true }
                core.state.messages.removeAll { $0.id == answer && $0.text.isEmpty }
            }
            let ended = try await offMain("writing") {
                var written = ""
                return try Self.answer(engine, directory, writing, stop) { piece in
                    written += piece
                    newest.send(written)
                }
            }
            change(answer) { $0.cut = ended == .maxTokens || ended == .sequenceFull }
        }
    }

    /// What no longer fits into a sequence is forgotten from its beginning.
    nonisolated private static func answer(
        _ engine: Engine, _ directory: URL, _ writing: Writing, _ stop: Stop, _ piece: (String) -> Void
    ) throws -> TextEnd? {
        var writing = writing
        while true {
            do {
                return try engine.write(directory, [writing], stop: stop) { piece($1) }[0]
            } catch let error as LcsbError where error.fault == .option && error.arguments == ["prompt"] && !writing.earlier.isEmpty {
                writing.earlier.removeFirst()
            }
        }
    }

    private func earlier() -> [(question: String, answer: String)] {
        let messages = core.state.messages
        return zip(messages, messages.dropFirst()).filter { $0.mine && !$1.mine }.map { ($0.text, $1.text) }
    }

    private func change(_ id: Int, _ change: (inout ChatMessage) -> Void) {
        if let index = core.state.messages.firstIndex(where: { $0.id == id }) { change(&core.state.messages[index]) }
    }

    func clear() {
        worker.cancel()
        core.state.messages = []
    }

    /// The same prompt by two, a piece of each in turn.
    func compare(_ prompt: String, _ left: Voice, _ right: Voice, chat: Bool, temperature: Double) {
        guard let bundle = core.state.bundle, !core.training.running else { return }
        let sampling = SamplingConfig(temperature: temperature)
        let writings = [left, right].map { Writing(adapter: adapter($0), prompt: prompt, chat: chat, sampling: sampling) }
        let (engine, directory) = (core.engine, core.library.directory(bundle))
        worker.start { [core] stop in
            (core.state.comparison, core.state.problem) = (Comparison(prompt: prompt, writing: true), nil)
            let newest = Newest<Comparison> { core.state.comparison = $0 }
            defer {
                newest.end()
                core.state.comparison.writing = false
            }
            _ = try await offMain("writing") {
                var written = Comparison(prompt: prompt, writing: true)
                return try engine.write(directory, writings, stop: stop) { side, piece in
                    if side == 0 { written.left += piece } else { written.right += piece }
                    newest.send(written)
                }
            }
        }
    }

    var writing: Bool { core.state.comparison.writing || core.state.messages.last?.complete == false }

    func stop() { worker.cancel() }

    /// Ends what is being written, and gives its memory back; of another model nothing is left.
    func leave() {
        stop()
        let engine = core.engine
        worker.start { _ in try await offMain("put down", engine.putDown) }
    }

    func finish() async { await worker.finish() }
}
