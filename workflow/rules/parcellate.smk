"""parcellate: cleaned time series of each parcel.

Input: preprocessed BOLD images and brain masks, nuisance regressors, atlas
Output: results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors, one (T, P) array per run; _quality.tsv

Smoothing and extraction are one matrix product; the matrix is built once per atlas, grid and kernel and kept in
results/parcellate/cache, where all jobs find it. The jobs are those of prepare.
"""


rule parcellate:
    input:
        [prepared_up_to("parcellate", dataset) for dataset in PREPARED],
