package org.pytorch.executorch;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;

/** Refuses the buffers that the library refuses. */
public final class Tensor {
    private final DType dtype;
    private final Buffer data;
    private final long[] shape;

    private Tensor(DType dtype, Buffer data, ByteOrder order, long[] shape) {
        long elements = 1;
        for (long size : shape) elements *= size;
        if (elements != data.capacity() || !data.isDirect() || order != ByteOrder.nativeOrder()) throw new IllegalArgumentException();
        this.dtype = dtype;
        this.data = data;
        this.shape = shape.clone();
    }

    public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
        return new Tensor(DType.UINT8, data, data.order(), shape);
    }

    public static Tensor fromBlob(ByteBuffer data, long[] shape) {
        return new Tensor(DType.INT8, data, data.order(), shape);
    }

    public static Tensor fromBlob(FloatBuffer data, long[] shape) {
        return new Tensor(DType.FLOAT, data, data.order(), shape);
    }

    public static Tensor fromBlob(ShortBuffer data, long[] shape) {
        return new Tensor(DType.HALF, data, data.order(), shape);
    }

    public static Tensor fromBlob(LongBuffer data, long[] shape) {
        return new Tensor(DType.INT64, data, data.order(), shape);
    }

    public DType dtype() {
        return dtype;
    }

    public long[] shape() {
        return shape.clone();
    }

    public Buffer getRawDataBuffer() {
        return data;
    }

    public void copyDataInto(FloatBuffer target) {
        target.put(((FloatBuffer) data).rewind());
    }

    public void copyDataInto(ShortBuffer target) {
        target.put(((ShortBuffer) data).rewind());
    }

    public void copyDataInto(LongBuffer target) {
        target.put(((LongBuffer) data).rewind());
    }

    public void copyDataInto(ByteBuffer target) {
        target.put(((ByteBuffer) data).rewind());
    }

    public void copyDataIntoUnsigned(ByteBuffer target) {
        target.put(((ByteBuffer) data).rewind());
    }
}
