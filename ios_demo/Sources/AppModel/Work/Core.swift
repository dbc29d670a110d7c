import Foundation
import LCSBKit

/// What works behind the screens, one of each a process.
@MainActor final class Core {
    let places: Places
    let services: Services
    let words: any Words
    let state = AppState()
    let settings: Settings
    let engine: Engine
    let library: BundleLibrary
    let data: DataShelf
    let runs: RunStore
    let adapters: AdapterShelf

    private(set) lazy var bundling = Bundling(self)
    private(set) lazy var reading = Reading(self)
    private(set) lazy var training = Training(self)
    private(set) lazy var trial = Trial(self)
    private(set) lazy var keeping = Keeping(self)

    /// The app is seen.
    var inFront = true

    init(_ places: Places, _ services: Services, _ words: any Words) {
        (self.places, self.services, self.words) = (places, services, words)
        settings = Settings(places.settings)
        engine = Engine(scratch: places.scratch)
        library = BundleLibrary(places: places, engine: engine)
        data = DataShelf(directory: places.data)
        runs = RunStore(directory: places.runs)
        adapters = AdapterShelf(directory: places.adapters)
        for directory in [places.bundles, places.data, places.runs, places.adapters] { try? makeDirectories(directory) }
    }

    func tell(_ error: any Error) { state.problem = Problem(error) }

    private struct Kept: Equatable {
        let locked: Bool
        let backup: Bool
    }
    private var kept: [URL: Kept] = [:]

    /// Puts what is private under the protection that it needs: a run that may go on while the phone is locked opens its data and what it
    /// saved. `again`: what was asked for may have been refused, since the phone was locked.
    func protect(again: Bool = false) {
        if again { kept = [:] }
        let locked = training.running || training.waitsForNight
        keep(places.data, Kept(locked: locked, backup: false))
        keep(places.runs, Kept(locked: locked, backup: false))
        keep(places.adapters, Kept(locked: false, backup: settings[\.backup]))
        keep(places.bundles, Kept(locked: true, backup: false))
    }

    /// What is made in a directory later is kept as the directory is.
    private func keep(_ directory: URL, _ wanted: Kept) {
        if kept[directory] == wanted { return }
        kept[directory] = wanted
        services.protection.protect(directory, night: wanted.locked, backup: wanted.backup)
    }
}
