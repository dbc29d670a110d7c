import Foundation

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
    }

    func tell(_ error: any Error) { state.problem = Problem(error) }

    /// Puts the directories of what is private under the protection that they need.
    func protect() {
        let night = training.waitsForNight
        for directory in [places.data, places.runs] { services.protection.protect(directory, night: night, backup: false) }
        services.protection.protect(places.adapters, night: false, backup: settings[\.backup])
        services.protection.protect(places.bundles, night: true, backup: false)
    }
}
