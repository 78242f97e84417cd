"""shard: samples for training, as WebDataset tars.

Input: time series, trials and framewise displacement (downstream)
Output: data/{role}/ds-{dataset}_sub-{subject}.tar, one sample per run (upstream) or per trial (downstream)

The jobs are those of prepare.
"""


rule shard:
    input:
        [prepared_up_to("shard", dataset) for dataset in PREPARED],
