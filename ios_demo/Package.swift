// swift-tools-version: 6.0
import PackageDescription

// One graph of targets on every platform; only what stands behind the name "onnxruntime" differs, and, where there is no SwiftUI, behind
// "SwiftUI", "Charts" and "BackgroundTasks". `#if` is about the machine that reads the manifest: a Mac building for iOS takes the #else.
#if os(Linux)
let onnxruntime: Target = .systemLibrary(name: "onnxruntime", path: "Sources/onnxruntime")
// ExecuTorchRunner's sources, tested over a stand-in for the library; on Apple's systems they are a package of their own.
let executorch: [Target] = [
    .target(name: "ExecuTorch", path: "Stubs/ExecuTorch"),
    .target(name: "LCSBExecuTorch", dependencies: ["ExecuTorch", "LCSBKit"], path: "ExecuTorchRunner/Sources/LCSBExecuTorch"),
]
#else
let executorch: [Target] = []
let onnxruntime: Target = .binaryTarget(
    name: "onnxruntime",
    url: "https://download.onnxruntime.ai/pod-archive-onnxruntime-c-1.24.2.zip",
    checksum: "f7100a992d2a8135168c8afd831e6a58b465349101982aa58b3e11d36e600b54"
)
#endif

let package = Package(
    name: "LCSBKit",
    defaultLocalization: "en",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "LCSBKit", targets: ["LCSBKit"]),
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
        .target(name: "LCSBKit", dependencies: ["COrt"]),
        .executableTarget(name: "lcsb-swift", dependencies: ["LCSBKit"]),
        .testTarget(name: "LCSBKitTests", dependencies: ["LCSBKit"] + executorch.map { .target(name: $0.name) }),
    ] + executorch
)
