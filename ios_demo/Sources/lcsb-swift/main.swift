import LCSBKit
