import Dispatch

/// Of a clock that only goes on.
func nanoseconds() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

func seconds(_ from: UInt64, _ to: UInt64) -> Double { Double(to - from) / 1e9 }
