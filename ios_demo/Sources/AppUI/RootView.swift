import Accessibility
import AppModel
import SwiftUI

/// The app's one window: five sections, of which one is seen. Each is a list; what comes over it hangs on the list, as rows come and go.
public struct RootView: View {
    @Bindable private var main: MainModel
    @Environment(\.scenePhase) private var scenePhase

    public init(main: MainModel) { self.main = main }

    public var body: some View {
        TabView(selection: $main.shown) {
            ForEach(Destination.allCases) { destination in
                NavigationStack {
                    screen(of: destination)
                        .scrollDismissesKeyboard(.interactively)
                        .navigationTitle(LocalizedStringKey(destination.title))
                }
                .tabItem { Label(LocalizedStringKey(destination.title), systemImage: destination.symbol) }
                .tag(destination)
            }
        }
        .onOpenURL { main.open($0) }
        .onChange(of: scenePhase) { _, phase in
            if phase == .active { main.cameToFront() }
            if phase == .background { main.wentToBack() }
        }
        .onChange(of: main.problem?.what) { _, what in
            if let what { AccessibilityNotification.Announcement(what).post() }
        }
    }

    @ViewBuilder private func screen(of destination: Destination) -> some View {
        switch destination {
        case .model: ModelScreen(main: main)
        case .data: DataScreen(main: main)
        case .train: TrainScreen(main: main)
        case .tryIt: TryScreen(main: main)
        case .share: ShareScreen(main: main)
        }
    }
}

extension Destination {
    /// The name of the system's picture for it.
    var symbol: String {
        switch self {
        case .model: "square.stack.3d.up"
        case .data: "text.alignleft"
        case .train: "chart.xyaxis.line"
        case .tryIt: "bubble.left.and.bubble.right"
        case .share: "square.and.arrow.up"
        }
    }
}
