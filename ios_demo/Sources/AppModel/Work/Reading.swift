import Foundation
import LCSBKit

/// What the Data screen does: brings data in and counts it.
@MainActor final class Reading {
    private unowned let core: Core
    private(set) lazy var worker = Worker { [core] error in
        core.state.reading = nil
        core.tell(error)
    }

    init(_ core: Core) { self.core = core }

    /// Shows what was chosen, and removes what nothing refers to: the files of copies and edits that the process did not survive.
    func begin() {
        guard let chosen = core.settings[\.data] else { return worker.start { [self] _ in await collect() } }
        reading(chosen.name) { [self] stop in
            await collect()
            core.state.data = isFile(core.data.file(chosen.file)) ? try await info(chosen) : nil
            try await summarizeNow(stop)
        }
    }

    /// A document that the person picked, or what a share sheet left in a file.
    func add(_ file: URL) {
        let name = file.lastPathComponent
        let access = core.services.files
        reading(name) { [self] stop in
            try await add(name, stop) { [shelf = core.data] progress in
                try access.reach(file) { try shelf.add($0, progress) }
            }
        }
    }

    func addSample() {
        guard let sample = core.places.demo?.appendingPathComponent("sample.jsonl") else { return }
        let name = core.words("sample_name")
        reading(name) { [self] stop in try await add(name, stop) { [shelf = core.data] in try shelf.add(sample, $0) } }
    }

    private func add(_ name: String, _ stop: Stop, _ add: @escaping @Sendable (@escaping (Int) throws -> Void) throws -> String) async throws {
        (core.state.reading, core.state.problem) = (Transfer(.copying, name), nil)
        let progress = Newest<Int> { [core] in core.state.reading = Transfer(.copying, name, done: $0) }
        defer { progress.end() }
        let file = try await offMain("data") {
            try add { done in
                try stop.check()
                progress.send(done)
            }
        }
        try await adopt(ChosenData(file: file, name: name), stop)
    }

    /// Adds to the person's own messages, or begins them; then calls `stored`.
    func type(_ message: String, _ stored: @escaping () -> Void) { edit(stored) { $0 + [message] } }

    func removeTyped(_ index: Int) {
        edit { messages in messages.enumerated().filter { $0.offset != index }.map(\.element) }
    }

    private func edit(_ stored: @escaping () -> Void = {}, _ change: @escaping ([String]) -> [String]) {
        let name = core.words("typed_name")
        reading(name) { [self] stop in
            let (messages, shelf) = (change(core.state.data?.typed ?? []), core.data)
            if messages.isEmpty { return try await choose(nil, nil) }
            let file = try await offMain("data") { try shelf.addTyped(messages) }
            try await adopt(ChosenData(file: file, name: name, typed: true), stop)
            stored()
        }
    }

    /// The data goes. A run that would go on with it is ended; what it has learned stays.
    func delete() {
        reading(core.state.data?.name ?? "") { [self] _ in
            guard let file = core.state.data?.file, !core.training.running else { return }
            for record in core.runs.all() where record.data == file && record.resumable { await core.training.abandon(record) }
            try await choose(nil, nil)
            let shelf = core.data
            try await offMain("delete") { shelf.discard(file) }
        }
    }

    /// Only what can be read under the chosen bundle takes the place of what was there; else the file goes, and that stays.
    private func adopt(_ chosen: ChosenData, _ stop: Stop) async throws {
        do {
            var found = try await info(chosen)
            if let bundle = core.state.bundle { found.summary = try await read(bundle, chosen.file, chosen.name, stop) }
            try await choose(chosen, found)
        } catch {
            if core.settings[\.data]?.file != chosen.file { core.data.discard(chosen.file) }
            throw error
        }
    }

    private func choose(_ chosen: ChosenData?, _ info: DataInfo?) async throws {
        try core.settings.choose(chosen)
        (core.state.reading, core.state.data) = (nil, info)
        core.protect()
        await collect()
    }

    private func info(_ chosen: ChosenData) async throws -> DataInfo {
        let shelf = core.data
        let typed = try await offMain("data") { chosen.typed ? shelf.typed(chosen.file) : nil }
        return DataInfo(file: chosen.file, name: chosen.name, typed: typed, summary: nil)
    }

    /// Files that neither the choice nor a run that may go on refers to go.
    private func collect() async {
        let (shelf, runs, chosen) = (core.data, core.runs, core.settings[\.data]?.file)
        try? await offMain("collect") { shelf.keepOnly(Set(runs.all().filter(\.resumable).map(\.data) + [chosen].compactMap { $0 })) }
    }

    /// Counts the data anew, for another model counts it otherwise; after what is under way, for that may be other data.
    func summarize() {
        if core.state.data == nil && !worker.busy { return }
        reading(core.state.data?.name ?? "", cancelling: false) { [self] in try await summarizeNow($0) }
    }

    private func summarizeNow(_ stop: Stop) async throws {
        guard var data = core.state.data else { return core.state.reading = nil }
        data.summary = nil
        if let bundle = core.state.bundle { data.summary = try await read(bundle, data.file, data.name, stop, whileChosen: true) }
        (core.state.reading, core.state.data) = (nil, data)
    }

    /// `whileChosen`: another choice of the bundle cancels it. What was counted once is kept.
    private func read(_ bundle: BundleInfo, _ file: String, _ name: String, _ stop: Stop, whileChosen: Bool = false) async throws -> DataSummary {
        let (shelf, engine, directory) = (core.data, core.engine, core.library.directory(bundle))
        let progress = Newest<Transfer> { [core] transfer in
            if whileChosen && core.state.chosen != bundle.name { stop.ask() }
            core.state.reading = transfer
        }
        defer { progress.end() }
        return try await offMain("data") {
            if let kept = shelf.summary(file, digest: bundle.digest) { return kept }
            let found = try engine.summarize(directory, shelf.file(file)) { done, total in
                try stop.check()
                progress.send(Transfer(.reading, name, done: done, total: total))
            }
            shelf.keep(found, file, digest: bundle.digest)
            return found
        }
    }

    private func reading(_ name: String, cancelling: Bool = true, _ work: @escaping (Stop) async throws -> Void) {
        if cancelling || core.state.reading == nil { core.state.reading = Transfer(.reading, name) }
        worker.start(cancelling: cancelling) { [core] stop in
            core.state.reading = Transfer(.reading, name)  // what went before this took it away
            defer { core.state.reading = nil }
            try await work(stop)
        }
    }

    func cancel() { worker.cancel() }
}
