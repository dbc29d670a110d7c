import Foundation
import LCSBKit

/// What the Share screen does: keeps adapters, brings them in and hands them out.
@MainActor final class Keeping {
    private unowned let core: Core
    private(set) lazy var worker = Worker { [core] error in
        core.state.packing = false
        core.tell(error)
    }

    init(_ core: Core) { self.core = core }

    func begin() {
        let shelf = core.adapters
        worker.start { _ in try await offMain("tidy", shelf.tidy) }
        list()
    }

    /// Those of the chosen bundle.
    func list() {
        let digest = core.state.bundle?.digest
        core.state.adapters = digest == nil ? [] : core.adapters.list().filter { $0.digest == digest }
        let ids = core.state.adapters.map(\.id)
        if let beginning = core.settings[\.beginning], !ids.contains(beginning) { core.settings[\.beginning] = nil }
        core.trial.chooseAnother()
    }

    /// What a run learned; its id, nil where it learned nothing. `file`: the adapter that it wrote, else it is made of the newest checkpoint.
    func keep(_ record: RunRecord, _ file: URL?) async throws -> String? {
        guard let bundle = core.state.bundles.first(where: { $0.name == record.bundle }), core.runs.begun(record.bundle) else { return nil }
        let (shelf, engine, directory, state) = (core.adapters, core.engine, core.library.directory(bundle), core.runs.state(record.bundle))
        let history = try await offMain("history") { try engine.history(bundle, state) }
        if history.step == 0 { return nil }
        let wanted = AdapterInfo(
            id: "", name: record.dataName, bundle: bundle.name, digest: bundle.digest, date: core.services.time.now(), origin: .trained,
            data: record.dataName, steps: history.step, before: history.evaluation.first?.loss,
            after: history.evaluation.count > 1 ? history.evaluation.last?.loss : nil, continued: record.continued, chat: record.chat, bytes: 0)
        let added = try await offMain("keep") {
            try shelf.add(wanted) { target in
                if let file, isFile(file) {
                    try copy(file, to: target)
                } else {
                    _ = try engine.saveAdapter(directory, state: state, to: target)
                }
            }
        }
        core.protect()
        list()
        core.trial.choose(.adapter(added.id))
        return added.id
    }

    /// PEFT's directory, or an adapter's file.
    func add(_ source: URL) {
        guard let bundle = core.state.bundle else { return }
        let (shelf, engine, directory, access) = (core.adapters, core.engine, core.library.directory(bundle), core.services.files)
        let name = source.deletingPathExtension().lastPathComponent
        let wanted = AdapterInfo(
            id: "", name: name, bundle: bundle.name, digest: bundle.digest, date: core.services.time.now(), origin: .imported, bytes: 0)
        worker.start { [self] _ in
            (core.state.packing, core.state.problem) = (true, nil)
            let added = try await offMain("adapter") {
                try access.reach(source) { reached in try shelf.add(wanted) { try engine.importAdapter(directory, reached, to: $0) } }
            }
            core.state.packing = false
            core.protect()
            list()
            core.trial.choose(.adapter(added.id))
        }
    }

    func rename(_ id: String, to name: String) {
        let plain = name.trimmingCharacters(in: .whitespacesAndNewlines)
        guard var info = core.state.adapters.first(where: { $0.id == id }), !plain.isEmpty else { return }
        info.name = String(plain.prefix(80))
        do {
            try core.adapters.save(info)
            list()
        } catch {
            core.tell(error)
        }
    }

    func delete(_ id: String) {
        core.trial.stop()
        core.adapters.remove(id)
        list()
    }

    /// PEFT's directory and, where the run is known, its report, as a ZIP file; then `send` gets it.
    func share(_ id: String, _ send: @escaping (SharedFile) -> Void) {
        guard let bundle = core.state.bundle, let info = core.state.adapters.first(where: { $0.id == id }) else { return }
        let (shelf, engine, directory) = (core.adapters, core.engine, core.library.directory(bundle))
        let record = core.runs.read(bundle.name)
        let report = record?.adapter == id ? record?.report?.json : nil
        pack(core.words("adapter_subject", info.name), send) { place in
            let peft = place.appendingPathComponent("adapter")
            try engine.exportPeft(directory, shelf.file(id), to: peft)
            if let report { try AppModel.store(report, to: peft.appendingPathComponent("training_report.json")) }
            let file = place.appendingPathComponent(freeName(info.name, default: "adapter") { _ in false } + ".zip")
            try writeZip(peft, to: file)
            remove(peft)
            return file
        }
    }

    func shareReport(_ send: @escaping (SharedFile) -> Void) {
        guard let bundle = core.state.bundle, let report = core.state.report else { return }
        pack(core.words("report_subject", bundle.name), send) { place in
            let file = place.appendingPathComponent("\(bundle.name)-report.json")
            try AppModel.store(report.json, to: file)
            return file
        }
    }

    private func pack(_ subject: String, _ send: @escaping (SharedFile) -> Void, _ make: @escaping @Sendable (URL) throws -> URL) {
        let place = core.places.scratch.appendingPathComponent("share")
        worker.start { [self] _ in
            (core.state.packing, core.state.problem) = (true, nil)
            let file = try await offMain("share") {
                remove(place)
                try storing(place) { try makeDirectories(place) }
                return try make(place)
            }
            core.state.packing = false
            send(SharedFile(url: file, subject: subject))
        }
    }
}
