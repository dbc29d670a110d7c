// swift-tools-version: 6.0
import PackageDescription

// One graph of targets on every platform; only what stands behind the name "onnxruntime" differs, and, where there is no SwiftUI, behind
// the names of Apple's frameworks. `#if` is about the machine that reads the manifest: a Mac building for iOS takes the #else.
#if os(Linux)
// What computes nothing is not optimised, which is most of the time that a build takes; the core, which the tests work hard, is.
let plain: [SwiftSetting] = [.unsafeFlags(["-Onone"])]
let onnxruntime: Target = .systemLibrary(name: "onnxruntime", path: "Sources/onnxruntime")

// Stand-ins for Apple's frameworks (Stubs/README.md), and what can be compiled and tested with them: the views, and the app's own sources,
// which on a Mac belong to the Xcode project.
let drawing: [Target.Dependency] = ["SwiftUI", "Charts", "UniformTypeIdentifiers", "Accessibility"]
let system: [Target.Dependency] = ["BackgroundTasks", "UIKit", "UserNotifications", "os"]
// And for the runtimes that are a part of Apple's systems; without them LCSBKit is built as for a system that has none.
let core: [Target.Dependency] = ["COrt", "CoreAI", "CoreML", "Metal"]
// ExecuTorchRunner's sources over a stand-in for the library; on Apple's systems they are a package of their own.
let coreTests: [Target.Dependency] = ["LCSBKit", "LCSBExecuTorch", "ExecuTorch", "CoreAI", "CoreML", "Metal"]
let onLinux: [Target] = [
    .target(name: "Metal", path: "Stubs/Metal"),
    .target(name: "CoreAI", dependencies: ["Metal"], path: "Stubs/CoreAI"),
    .target(name: "CoreML", path: "Stubs/CoreML"),
    .target(name: "ExecuTorch", path: "Stubs/ExecuTorch"),
    .target(name: "LCSBExecuTorch", dependencies: ["ExecuTorch", "LCSBKit"], path: "ExecuTorchRunner/Sources/LCSBExecuTorch"),
    .target(name: "UniformTypeIdentifiers", path: "Stubs/UniformTypeIdentifiers", swiftSettings: plain),
    .target(name: "SwiftUI", dependencies: ["UniformTypeIdentifiers"], path: "Stubs/SwiftUI", swiftSettings: plain),
    .target(name: "Charts", dependencies: ["SwiftUI"], path: "Stubs/Charts", swiftSettings: plain),
    .target(name: "Accessibility", path: "Stubs/Accessibility", swiftSettings: plain),
    .target(name: "BackgroundTasks", path: "Stubs/BackgroundTasks", swiftSettings: plain),
    .target(name: "UIKit", path: "Stubs/UIKit", swiftSettings: plain),
    .target(name: "UserNotifications", path: "Stubs/UserNotifications", swiftSettings: plain),
    .target(name: "os", path: "Stubs/os", swiftSettings: plain),
    .executableTarget(
        name: "LCSBMobile",
        dependencies: ["AppUI", "AppModel", "LCSBKit"] + drawing + system,
        path: "App",
        exclude: [
            "Assets.xcassets", "Info.plist", "InfoPlist.xcstrings", "LCSBMobile.entitlements", "Localizable.xcstrings", "PrivacyInfo.xcprivacy",
        ],
        swiftSettings: plain
    ),
    .testTarget(name: "AppUITests", dependencies: ["AppUI", "AppModel", "LCSBMobile"] + drawing + system, swiftSettings: plain),
]
#else
let onnxruntime: Target = .binaryTarget(
    name: "onnxruntime",
    url: "https://download.onnxruntime.ai/pod-archive-onnxruntime-c-1.24.2.zip",
    checksum: "f7100a992d2a8135168c8afd831e6a58b465349101982aa58b3e11d36e600b54"
)
let plain: [SwiftSetting] = []
let drawing: [Target.Dependency] = []
let core: [Target.Dependency] = ["COrt"]
let coreTests: [Target.Dependency] = ["LCSBKit"]
let onLinux: [Target] = []
#endif

let package = Package(
    name: "LCSBKit",
    defaultLocalization: "en",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "LCSBKit", targets: ["LCSBKit"]),
        .library(name: "AppModel", targets: ["AppModel"]),
        .library(name: "AppUI", targets: ["AppUI"]),
        .executable(name: "lcsb-swift", targets: ["lcsb-swift"]),
    ],
    targets: [
        onnxruntime,
        .target(
            name: "COrt",
            dependencies: ["onnxruntime"],
            linkerSettings: [
                .linkedLibrary("onnxruntime", .when(platforms: [.linux])),
                .linkedLibrary("c++", .when(platforms: [.iOS, .macOS])),
                .linkedFramework("CoreML", .when(platforms: [.iOS, .macOS])),
            ]
        ),
        .target(name: "LCSBKit", dependencies: core),
        .executableTarget(name: "lcsb-swift", dependencies: ["LCSBKit"]),
        .target(name: "AppModel", dependencies: ["LCSBKit"], swiftSettings: plain),
        .target(name: "AppUI", dependencies: ["AppModel"] + drawing, swiftSettings: plain),
        .testTarget(name: "LCSBKitTests", dependencies: coreTests, swiftSettings: plain),
        .testTarget(name: "AppModelTests", dependencies: ["AppModel"], swiftSettings: plain),
    ] + onLinux
)
