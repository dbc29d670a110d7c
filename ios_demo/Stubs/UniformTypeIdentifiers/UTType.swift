// A stand-in: see ../README.md for what it does not prove.
public struct UTType: Hashable, Sendable {
    public let identifier: String
    public init?(_ identifier: String) { self.identifier = identifier }
    private init(_ known: StaticString) { identifier = "\(known)" }

    /// Of a file whose name ends so.
    public init?(filenameExtension: String, conformingTo supertype: UTType = .data) { identifier = "dyn.\(filenameExtension)" }

    public static let item = UTType("public.item" as StaticString), data = UTType("public.data" as StaticString)
    public static let folder = UTType("public.folder" as StaticString), zip = UTType("public.zip-archive" as StaticString)
    public static let text = UTType("public.text" as StaticString), plainText = UTType("public.plain-text" as StaticString)
    public static let json = UTType("public.json" as StaticString)
}
