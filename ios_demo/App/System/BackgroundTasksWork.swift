import AppModel
import BackgroundTasks
import Foundation
import UIKit

/// An identifier of Info.plist, which are `$(PRODUCT_BUNDLE_IDENTIFIER).run` and `.night`: whoever signs the app with an identifier of
/// their own changes nothing here.
func taskIdentifier(_ name: String) -> String { (Bundle.main.bundleIdentifier ?? "lcsbmobile.app") + "." + name }

/// What lets the app work while it is not seen: a run that the person started goes on (iOS 26), one is trained at night with external
/// power, and some seconds are given to save.
@MainActor final class BackgroundTasksWork: BackgroundWork {
    private static let run = taskIdentifier("run")
    private static let night = taskIdentifier("night")
    private static let toSave = 10  // seconds: a step ends between two layers

    /// Non-Sendable classes of BackgroundTasks, which the system hands over on the main queue and which are used there alone.
    private struct Handed<Value>: @unchecked Sendable { let value: Value }

    /// The task of the run that goes on, once the system has begun it.
    private var continued: Continued?
    private var expired: (@MainActor () -> Void)?
    private var grace = UIBackgroundTaskIdentifier.invalid

    /// Of `BGContinuedProcessingTask`, which older systems have not.
    private struct Continued {
        let show: (_ done: Int, _ total: Int, _ title: String, _ text: String) -> Void
        let end: (_ success: Bool) -> Void
    }

    /// Once, before the app has begun. `trainAtNight`: as `MainModel` has it.
    func register(trainAtNight: @escaping @MainActor () async -> Bool) {
        BGTaskScheduler.shared.register(forTaskWithIdentifier: Self.night, using: .main) { task in
            let handed = Handed(value: task)
            MainActor.assumeIsolated {
                let training = Task { await trainAtNight() }
                handed.value.expirationHandler = { training.cancel() }
                Task { handed.value.setTaskCompleted(success: await training.value) }
            }
        }
        #if os(Linux) || compiler(>=6.2)  // Xcode 26, whose SDK has it
        guard #available(iOS 26.0, *) else { return }
        BGTaskScheduler.shared.register(forTaskWithIdentifier: Self.run, using: .main) { [weak self] task in
            guard let task = task as? BGContinuedProcessingTask else { return task.setTaskCompleted(success: false) }
            let handed = Handed(value: task)
            MainActor.assumeIsolated { self?.began(handed.value) ?? handed.value.setTaskCompleted(success: false) }
        }
        #endif
    }

    // MARK: A run that the person started

    func beginContinued(title: String, text: String, expired: @escaping @MainActor () -> Void) -> Bool {
        #if os(Linux) || compiler(>=6.2)
        guard #available(iOS 26.0, *) else { return false }
        self.expired = expired
        let request = BGContinuedProcessingTaskRequest(identifier: Self.run, title: title, subtitle: text)
        request.strategy = .fail  // to begin later than the run would be no help
        return (try? BGTaskScheduler.shared.submit(request)) != nil
        #else
        return false
        #endif
    }

    #if os(Linux) || compiler(>=6.2)
    @available(iOS 26.0, *)
    private func began(_ task: BGContinuedProcessingTask) {
        guard expired != nil else { return task.setTaskCompleted(success: true) }  // the run ended before the system began this
        task.expirationHandler = { [weak self] in Task { @MainActor in self?.wasExpired() } }
        continued = Continued { done, total, title, text in
            task.progress.totalUnitCount = Int64(total)
            task.progress.completedUnitCount = Int64(done)
            if task.title != title || task.subtitle != text { task.updateTitle(title, subtitle: text) }
        } end: { success in
            task.setTaskCompleted(success: success)
        }
    }
    #endif

    /// The system needs the phone for something else, or the person ended it there: its task has to end at once, and the run is saved in
    /// the seconds that any app has.
    private func wasExpired() {
        let tell = expired
        beginGrace()
        endContinued(success: false)
        tell?()
        Task {
            try? await Task.sleep(for: .seconds(Self.toSave))
            endGrace()
        }
    }

    func showContinued(done: Int, total: Int, title: String, text: String) { continued?.show(done, total, title, text) }

    func endContinued(success: Bool) {
        continued?.end(success)
        if continued == nil && expired != nil { BGTaskScheduler.shared.cancel(taskRequestWithIdentifier: Self.run) }
        (continued, expired) = (nil, nil)
    }

    // MARK: At night

    func scheduleNight(wanted: Bool) {
        guard wanted else { return BGTaskScheduler.shared.cancel(taskRequestWithIdentifier: Self.night) }
        let request = BGProcessingTaskRequest(identifier: Self.night)
        request.requiresExternalPower = true
        request.requiresNetworkConnectivity = false
        try? BGTaskScheduler.shared.submit(request)  // refused where the person switched background work off: then the run waits
    }

    // MARK: Some seconds to save

    func beginGrace() {
        guard grace == .invalid else { return }
        grace = UIApplication.shared.beginBackgroundTask(withName: "save") { [weak self] in self?.endGrace() }
    }

    func endGrace() {
        guard grace != .invalid else { return }
        UIApplication.shared.endBackgroundTask(grace)
        grace = .invalid
    }

    // MARK: The screen

    func keepAwake(_ on: Bool) { UIApplication.shared.isIdleTimerDisabled = on }
}
