import Foundation
import LCSBKit

/// What the Model screen does: brings bundles in, chooses and removes them.
@MainActor final class Bundling {
    private unowned let core: Core
    private(set) lazy var worker = Worker { [core] error in
        core.state.transfer = nil
        core.tell(error)
    }
    private var removing: Task<Void, Never>?

    init(_ core: Core) { self.core = core }

    /// Lists what is there. The first time the tiny bundle that rides in the app is taken; a copy that was broken off goes on.
    func begin() {
        core.state.bundles = core.library.list()
        look()
        let chosen = core.settings[\.chosen]
        core.state.chosen = core.state.bundles.contains { $0.name == chosen } ? chosen : core.state.bundles.first?.name
        let library = core.library
        worker.start { _ in try await offMain("tidy", library.tidy) }
        if core.state.unfinishedImport != nil {
            goOnImporting(byItself: true)
        } else if core.state.bundles.isEmpty && !core.settings[\.hadBundle] {
            addDemo(cancelling: false)
        }
    }

    /// What was pushed or broken off meanwhile.
    func look() {
        core.state.found = core.library.found()
        core.state.unfinishedImport = core.state.transfer == nil ? core.library.unfinished?.name : nil
    }

    func add(_ folder: URL) {
        let (library, files, name) = (core.library, core.services.files, folder.lastPathComponent)
        take(.copying, name) { stop, progress in
            try files.reach(folder) { try library.add($0, bookmark: files.remember(folder), stop: stop, progress) }
        }
    }

    func add(_ found: FoundBundle) {
        let library = core.library
        take(.verifying, found.name) { stop, progress in try library.adopt(.documents, found.directory, stop: stop, progress) }
    }

    var canAddDemo: Bool { core.places.demo != nil && !core.state.bundles.contains { $0.place == .app } }

    func addDemo(cancelling: Bool = true) {
        guard canAddDemo else { return }
        let library = core.library
        take(.verifying, "tiny", cancelling: cancelling) { stop, progress in try library.adopt(.app, "tiny", stop: stop, progress) }
    }

    /// `byItself`: where the folder cannot be reached any more nothing is said; the person sees that the copy was broken off.
    func goOnImporting(byItself: Bool = false) {
        guard let begun = core.library.unfinished else { return look() }
        let (files, library) = (core.services.files, core.library)
        take(.copying, begun.name) { stop, progress in
            guard let bookmark = begun.bookmark, let folder = files.recall(bookmark) else { throw AccessLost(path: begun.name) }
            do {
                return try files.reach(folder) { try library.add($0, bookmark: bookmark, stop: stop, progress) }
            } catch let error as AccessLost {
                if byItself { throw CancellationError() }
                throw error
            }
        }
    }

    func discardImport() {
        worker.cancel()
        let library = core.library
        worker.start { [core] _ in
            try await offMain("discard", library.discardImport)
            core.bundling.look()
        }
    }

    private func take(
        _ kind: Transfer.Kind, _ name: String, cancelling: Bool = true,
        _ work: @escaping @Sendable (Stop, @escaping @Sendable (Transfer) -> Void) throws -> BundleInfo
    ) {
        worker.start(cancelling: cancelling) { [core] stop in
            core.state.transfer = Transfer(kind, name)
            (core.state.problem, core.state.unfinishedImport) = (nil, nil)
            let progress = Newest<Transfer> { core.state.transfer = $0 }
            defer {
                progress.end()
                core.state.transfer = nil
                core.bundling.look()
            }
            let added = try await offMain("bundle") { try work(stop) { progress.send($0) } }
            core.settings[\.hadBundle] = true
            core.state.bundles = core.library.list()
            core.bundling.choose(added.name)
        }
    }

    /// What was copied goes too: who cancels does not want it.
    func cancel() {
        guard core.state.transfer != nil else { return }
        discardImport()
    }

    /// Not while a run is under way: what it shows would belong to another model.
    func choose(_ name: String) {
        guard !core.state.run.active, core.state.bundles.contains(where: { $0.name == name }) else { return }
        core.trial.leave()
        core.settings[\.chosen] = name
        show(name)
        core.training.showSaved()
        core.reading.summarize()
    }

    /// Another bundle's run is not shown with it.
    func show(_ name: String?) {
        core.state.chosen = name
        (core.state.run, core.state.report) = (RunState(steps: core.settings[\.steps]), nil)
        (core.state.messages, core.state.comparison) = ([], Comparison())
        core.keeping.list()
    }

    /// With what it learned, unless the same bundle is listed once more.
    func remove(_ name: String) {
        if core.state.run.active && core.state.chosen == name { return }
        guard let bundle = core.state.bundles.first(where: { $0.name == name }) else { return }
        core.trial.leave()
        let (library, engine, runs, adapters) = (core.library, core.engine, core.runs, core.adapters)
        let again = core.state.bundles.contains { $0.name != name && $0.digest == bundle.digest }
        core.state.bundles.removeAll { $0.name == name }
        removing = Task { [before = removing] in
            await before?.value
            try? await offMain("remove") {
                engine.forget(library.directory(bundle))
                library.remove(bundle)
                runs.remove(name)
                if again { return }
                removeCompiledModel(bundle.digest)
                adapters.list().filter { $0.digest == bundle.digest }.forEach { adapters.remove($0.id) }
            }
            look()
            core.keeping.list()
        }
        guard core.state.chosen == name else { return }
        if let left = core.state.bundles.first { choose(left.name) } else { show(nil) }
        core.training.schedule()
    }

    /// What was measured or found out of a bundle, if it is still there. Throws STORAGE_FULL, STORAGE_FAILED.
    func update(_ bundle: BundleInfo) throws {
        guard let index = core.state.bundles.firstIndex(where: { $0.name == bundle.name }) else { return }
        try core.library.save(bundle)
        core.state.bundles[index] = bundle
    }

    func finish() async {
        await worker.finish()
        await removing?.value
    }
}
