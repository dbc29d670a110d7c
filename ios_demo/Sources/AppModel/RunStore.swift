import Foundation

/// What a run came to. `json`: as `lcsb simulate --json` names its fields.
public struct RunReport: Codable, Equatable, Sendable {
    public var json: String
    public var steps: Int
    public var seconds: Double
    public var before: Double?
    public var after: Double?
    public var memory: Int
    public var runtime: String
    public var phone: String
}
