"""preprocess: nuisance regressors and motion quality.

Input: confounds tables of fMRIPrep
Output: results/preprocess/{dataset}/sub-{subject}_nuisance.tsv (regressors per frame), _qc.tsv (one row per run)

Runs over a threshold of preprocess.exclude are excluded; the reason stands in _qc.tsv. The jobs are those of prepare.
"""


rule preprocess:
    input:
        [prepared_up_to("preprocess", dataset) for dataset in PREPARED],
