package lcsbmobile.app

import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner

/** The test for phones, where there is none: under Robolectric, with the JVM's runtime. */
@RunWith(RobolectricTestRunner::class)
class GoldenTraceOnTheJvmTest : GoldenTraceTest()
