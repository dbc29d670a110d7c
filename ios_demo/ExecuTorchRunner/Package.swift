// swift-tools-version: 6.0
import PackageDescription

// Beside LCSBKit, so that only who wants ExecuTorch downloads it. Apple's systems only: LCSBKit's own package builds the same sources on
// Linux, where a stand-in has the library's name.
let package = Package(
    name: "LCSBExecuTorch",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "LCSBExecuTorch", targets: ["LCSBExecuTorch"])],
    dependencies: [
        .package(name: "LCSBKit", path: ".."),
        .package(url: "https://github.com/pytorch/executorch", branch: "swiftpm-1.5.1"),
    ],
    targets: [
        .target(
            name: "LCSBExecuTorch",
            dependencies: [
                "LCSBKit",
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
            ]
        )
    ]
)
