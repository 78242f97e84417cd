"""The model behind the demo study: how its signals are made, and the best accuracy they allow.

Nothing here is brain data. In the order of the making:

`networks`
    Eight networks with their own lagged oscillations, spread over 48 parcels, differently in each subject.
`states`
    Mental states that drive the networks through a haemodynamic response. Some differ in which networks respond,
    some only in the order in which the same networks respond.
`anatomy`
    A made-up brain: mask, tissues, soft parcels.
`artefacts`
    Head motion, respiration, tissue signals, drifts; the voxel image of a run.
`confounds`
    The confounds table that fMRIPrep would write about that image.
`ceilings`
    The best accuracy that any decoder, and any decoder of the mean signal, can reach.

The model itself is fixed: networks, states and anatomy are the same for every seed. A seed draws the subjects,
their trials and the noise.
"""
