package org.pytorch.executorch;

import java.io.Closeable;

public class Module implements Closeable {
    public static final int LOAD_MODE_MMAP = 1;

    /** For tests alone: the library's own is private. */
    protected Module() {}

    public static Module load(String modelPath, int loadMode, int numThreads) {
        throw new UnsatisfiedLinkError("no executorch");
    }

    public EValue[] execute(String methodName, EValue... inputs) {
        throw new UnsupportedOperationException();
    }

    public String[] getMethods() {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() {}
}
