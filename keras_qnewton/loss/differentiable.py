"""Operations that TensorFlow differentiates, and whose gradients it differentiates once more.

Of TensorFlow 2.18: operations with an entry in its registry of gradients, all of whose gradient's
operations have one, too. `tests/loss/test_derivatives.py` goes through that registry. What another
version adds is not among them, and is refused until it has been looked at.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


TWICE_DIFFERENTIABLE = _names(
    """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 Angle ApproxTopK Asin Asinh Atan Atan2 Atanh AvgPool
    AvgPool3D AvgPool3DGrad AvgPoolGrad BandedTriangularSolve BatchMatMul BatchMatMulV2
    BatchMatMulV3 BatchToSpace BatchToSpaceND BesselK0 BesselK0e BesselK1 BesselK1e BesselY0
    BesselY1 Betainc BiasAdd BiasAddGrad BiasAddV1 BroadcastTo Cast Cholesky ClipByValue Complex
    ComplexAbs Concat ConcatV2 Conj ConjugateTranspose Conv2D Conv2DBackpropFilter
    Conv2DBackpropInput Conv3D Conv3DBackpropFilterV2 Conv3DBackpropInputV2 Cos Cosh Cross Cumsum
    Dawsn DepthToSpace DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter
    DepthwiseConv2dNativeBackpropInput Diag DiagPart Digamma Div DivNoNan DynamicPartition
    DynamicStitch Eig Einsum Elu EluGrad EnsureShape Erf Erfc Erfinv EuclideanNorm Exp ExpandDims
    Expint Expm1 ExtractImagePatches ExtractVolumePatches FFT FFT2D FFT3D Fill FloorMod FresnelCos
    FresnelSin FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3
    FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 IFFT IFFT2D IFFT3D IRFFT IRFFT2D
    Identity IdentityN Igamma Igammac Imag ImageProjectiveTransformV2 ImageProjectiveTransformV3 Inv
    InvGrad IsotonicRegression L2Loss LeakyRelu LeakyReluGrad Lgamma Log Log1p LogMatrixDeterminant
    LogSoftmax MatMul MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
    MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3
    MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Max MaxPool3DGrad
    MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad Maximum Mean Min Minimum MirrorPad MirrorPadGrad
    Mul MulNoNan Ndtri Neg NextAfter NthElement Pack Pad PadV2 ParallelDynamicStitch
    PlaceholderWithDefault Polygamma Qr QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 RFFT RFFT2D
    RGBToHSV RaggedGather RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
    ReadVariableOp Real RealDiv Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad Reshape
    ResourceGather ResourceGatherNd Reverse ReverseSequence ReverseV2 Roll Rsqrt RsqrtGrad ScatterNd
    ScatterNdNonAliasingAdd SegmentMax SegmentMean SegmentMin SegmentSum Select SelectV2 Selu
    SeluGrad Sigmoid SigmoidGrad Sin Sinh Slice Softmax Softplus SoftplusGrad SpaceToBatch
    SpaceToBatchND SpaceToDepth SparseDenseCwiseDiv SparseDenseCwiseMul SparseMatMul SparseReduceSum
    SparseReorder SparseSoftmaxCrossEntropyWithLogits SparseTensorDenseAdd SparseTensorDenseMatMul
    SparseToDense Split SplitV Sqrt SqrtGrad Square SquaredDifference Squeeze StridedSlice
    StridedSliceGrad Sub Sum Tan Tanh TanhGrad TensorListConcat TensorListConcatV2
    TensorListFromTensor TensorListGather TensorListGetItem TensorListPopBack TensorListPushBack
    TensorListResize TensorListScatter TensorListScatterIntoExistingList TensorListScatterV2
    TensorListSetItem TensorListSplit TensorListStack TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TopKV2
    Transpose TridiagonalMatMul TridiagonalSolve Unpack UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentSum Zeta
    """
)
