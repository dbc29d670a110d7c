import Foundation
import XCTest
@testable import LCSBKit

// The bundles that tests read, and copies of them to spoil.

private let opened = Locked<[String: TrainingBundle]>([:])

func openBundle(_ name: String) throws -> TrainingBundle {
    try opened.with { opened in
        if let bundle = opened[name] { return bundle }
        let bundle = try TrainingBundle.open(TestBundles.directory.appendingPathComponent(name))
        opened[name] = bundle
        return bundle
    }
}

func initialAdapter(_ bundle: TrainingBundle) throws -> Floats {
    let adapter = try Floats(count: bundle.manifest.adapter.size)
    try bundle.readInitialAdapter(into: adapter)
    return adapter
}

/// Layers of these sizes.
func layoutOf(_ sizes: Int...) -> AdapterLayout {
    let matrices = sizes.map { (key: "of\($0)", value: [AdapterMatrix(name: "x.lora_A", shape: [1, $0], offset: 0)]) }
    return AdapterLayout(LoraConfig(), Entries(matrices), sizes.map { "of\($0)" })
}

func inCopy<Result>(of name: String = "llama", _ use: (URL) throws -> Result) throws -> Result {
    try inScratch { scratch in
        let copy = scratch.appendingPathComponent(name)
        try FileManager.default.copyItem(at: openBundle(name).directory, to: copy)
        return try use(copy)
    }
}

extension URL {
    /// A file in this directory.
    func file(_ name: String) -> URL { appendingPathComponent(name) }

    /// A file's content.
    var content: [UInt8] { get throws { try readBounded(self, 1 << 30) } }

    func write(_ content: some Collection<UInt8>) throws { try Foundation.Data(content).write(to: self) }

    func write(_ text: String) throws { try write(Array(text.utf8)) }
}

// JSON that is changed and written again.

extension Json {
    init(text: String) throws { self = try Json(content: Array(text.utf8)) }

    init(content: [UInt8]) throws {
        let reader = try JsonReader(content)
        self = try reader.tree(nodes: 1 << 24)
        try reader.finish()
    }

    /// The value at a path such as graphs.embed.inputs.0.shape, with slashes where a name has dots.
    func at(_ path: String) -> Json { Self.parts(path).reduce(self) { place, part in place.array?[Int(part)!] ?? place[part]! } }

    /// With `value` at that path, nil for none; an array may grow by one.
    func put(_ path: String, _ value: Json?) -> Json { put(Self.parts(path)[...], value)! }

    private static func parts(_ path: String) -> [String] { path.split(separator: path.contains("/") ? "/" : ".").map(String.init) }

    private func put(_ path: ArraySlice<String>, _ value: Json?) -> Json? {
        guard let key = path.first else { return value }
        let rest = path.dropFirst()
        switch self {
        case .array(var elements):
            let index = Int(key)!
            if index == elements.count { elements.append(value!) } else { elements[index] = elements[index].put(rest, value)! }
            return .array(elements)
        case .object(var members):
            let place = members.firstIndex { $0.key == key }
            let changed = (place.map { members[$0].value } ?? .object([])).put(rest, value)
            if let place { members.remove(at: place) }
            if let changed { members.insert((key, changed), at: place ?? members.count) }
            return .object(members)
        default: return Json.object([]).put(path, value)
        }
    }
}

extension Json {
    /// One of our records, by the names of its properties; nil is left out.
    init(record: Any) {
        let mirror = Mirror(reflecting: record)
        if let named = record as? any Named {
            self = .object(named.members.map { ($0.key, Json(record: $0.value)) })
        } else if mirror.displayStyle == .struct {
            self = .object(mirror.children.compactMap { child in
                let value = Mirror(reflecting: child.value)
                guard value.displayStyle == .optional else { return (snakeCase(child.label!), Json(record: child.value)) }
                return value.children.first.map { (snakeCase(child.label!), Json(record: $0.value)) }
            })
        } else {
            switch record {
            case let text as String: self = .string(text)
            case let value as Bool: self = .bool(value)
            case let number as Int: self = .number("\(number)")
            case let number as Double: self = .number(pythonRepr(number))
            case let list as [Any]: self = .array(list.map(Json.init(record:)))
            case let constant as any RawRepresentable: self = Json(record: constant.rawValue)
            default: preconditionFailure("\(type(of: record)) is no part of a record")
            }
        }
    }
}

private protocol Named {
    var members: [(key: String, value: Any)] { get }
}

extension Entries: Named {
    fileprivate var members: [(key: String, value: Any)] { map { ($0.key, $0.value) } }
}

private func snakeCase(_ name: String) -> String { name.map { $0.isUppercase ? "_\($0.lowercased())" : "\($0)" }.joined() }
