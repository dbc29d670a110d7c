/// Takes what is wrong with a bundle, a sentence at a time; throws once that is enough.
typealias Report = (String) throws -> Void

/// The first that `look` reports.
func firstFaults(most: Int, _ look: (Report) throws -> Void) throws -> [String] {
    struct Enough: Error {}
    var found: [String] = []
    do {
        try look { fault in
            found.append(fault)
            if found.count == most { throw Enough() }
        }
    } catch is Enough {}
    return found
}

/// Names that stand twice.
func repeated(_ place: String, _ names: [String], _ report: Report) throws {
    var counts: Entries<Int> = [:]
    for name in names { counts[name] = (counts[name] ?? 0) + 1 }
    for (name, count) in counts where count > 1 { try report("\(place): \(quoted(name)) stands twice") }
}

func unreadable(_ message: String) -> LcsbError { LcsbError(.bundleUnreadable, message) }

/// JSON of one of a bundle's files, whose size bounds it, with each key of an object once. Throws JsonError.
func parsed(_ content: [UInt8]) throws -> Json {
    let reader = try JsonReader(content)
    let tree = try reader.tree(nodes: content.count, unique: true)
    try reader.finish()
    return tree
}
