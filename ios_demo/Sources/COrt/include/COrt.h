// ONNX Runtime's C API, for Swift: its table of functions is called as it stands. Microsoft's archive has no module map.
#pragma once
#include <onnxruntime/onnxruntime_c_api.h>
