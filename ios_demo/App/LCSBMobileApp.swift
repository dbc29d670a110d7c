import AppModel
import AppUI
import Foundation
import SwiftUI

/// What only an app can do: it finds its places, gives its screens the phone, and says before it is seen what it may do in the background.
@main
struct LCSBMobileApp: App {
    @State private var main: MainModel

    init() {
        let background = BackgroundTasksWork()
        let services = Services(
            device: Phone.shared, notifier: Notices(), background: background, files: PickedFiles(), protection: ProtectionClasses()
        )
        let main = MainModel(places: .app, services: services, words: Self.words)
        background.register { await main.trainAtNight() }
        MemoryWarnings.shared.observe { main.memoryIsShort() }
        main.begin()
        _main = State(initialValue: main)
    }

    private static var words: any Words {
        #if canImport(Darwin)
        AppWords()
        #else
        Keys()  // nothing compiles the catalog into the app there
        #endif
    }

    var body: some Scene {
        WindowGroup { RootView(main: main) }
    }
}

extension Places {
    /// Of this app, on this phone. `demo` is what the Xcode project copies into the app.
    static var app: Places {
        let files = FileManager.default
        func place(_ directory: FileManager.SearchPathDirectory) -> URL { files.urls(for: directory, in: .userDomainMask)[0] }
        return Places(
            support: place(.applicationSupportDirectory), documents: place(.documentDirectory), scratch: files.temporaryDirectory,
            demo: Bundle.main.url(forResource: "demo", withExtension: nil)
        )
    }
}

#if !canImport(Darwin)
private struct Keys: Words {
    var locale: Locale { Locale(identifier: "en") }
    func say(_ key: String, _ words: [Word]) -> String { key }
}
#endif
