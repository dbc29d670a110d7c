// A stand-in: see ../README.md for what it does not prove. It starts nothing; tests hand tasks to the handlers that were registered.
import Foundation

open class BGTask: NSObject {
    public let identifier: String
    public var expirationHandler: (() -> Void)?
    /// For tests: how it ended, and how often.
    public private(set) var completed: [Bool] = []

    public init(identifier: String) { self.identifier = identifier }
    open func setTaskCompleted(success: Bool) { completed.append(success) }
}

public final class BGProcessingTask: BGTask {}

/// iOS 26 and later.
public final class BGContinuedProcessingTask: BGTask, ProgressReporting {
    public let progress = Progress(totalUnitCount: 0)
    public private(set) var title: String
    public private(set) var subtitle: String

    public init(identifier: String, title: String, subtitle: String) {
        (self.title, self.subtitle) = (title, subtitle)
        super.init(identifier: identifier)
    }
    public func updateTitle(_ title: String, subtitle: String) { (self.title, self.subtitle) = (title, subtitle) }
}

open class BGTaskRequest {
    public let identifier: String
    public var earliestBeginDate: Date?
    init(identifier: String) { self.identifier = identifier }
}

public final class BGProcessingTaskRequest: BGTaskRequest {
    public var requiresNetworkConnectivity = false
    public var requiresExternalPower = false
    public override init(identifier: String) { super.init(identifier: identifier) }
}

/// iOS 26 and later.
public final class BGContinuedProcessingTaskRequest: BGTaskRequest {
    public enum SubmissionStrategy: Int, Sendable { case fail, queue }

    public var title: String
    public var subtitle: String
    public var strategy = SubmissionStrategy.queue
    public init(identifier: String, title: String, subtitle: String) {
        (self.title, self.subtitle) = (title, subtitle)
        super.init(identifier: identifier)
    }
}

public final class BGTaskScheduler: @unchecked Sendable {
    public static let shared = BGTaskScheduler()

    /// For tests.
    public var handlers: [String: @Sendable (BGTask) -> Void] = [:]
    public var requests: [BGTaskRequest] = []
    public var refusal: (any Error)?

    /// As the system does, it takes each identifier once a process.
    @discardableResult public func register(
        forTaskWithIdentifier identifier: String, using queue: DispatchQueue?, launchHandler: @escaping @Sendable (BGTask) -> Void
    ) -> Bool {
        precondition(handlers[identifier] == nil, "\(identifier) was registered twice, for which the system ends the app")
        handlers[identifier] = launchHandler
        return true
    }

    public func submit(_ taskRequest: BGTaskRequest) throws {
        if let refusal { throw refusal }
        precondition(handlers[taskRequest.identifier] != nil, "\(taskRequest.identifier) was not registered")
        requests.removeAll { $0.identifier == taskRequest.identifier }
        requests.append(taskRequest)
    }

    public func cancel(taskRequestWithIdentifier identifier: String) { requests.removeAll { $0.identifier == identifier } }

    /// For tests.
    public func reset() { (handlers, requests, refusal) = ([:], [], nil) }
}
